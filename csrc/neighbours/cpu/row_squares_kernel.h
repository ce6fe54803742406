// Squared norms of rows in double. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// square[i] = |x_i|^2, for rows [begin, end), in the order of summation of all dot products of this family.
template <typename T>
void row_squares(const T* x, int64_t d, double* square, int64_t begin, int64_t end);

}  // namespace smore
