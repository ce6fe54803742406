#include "neighbours/cpu/dot_double.inl"

namespace smore::SMORE_LEVEL {

template <typename T>
void row_squares_at(const T* x, int64_t d, double* square, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T* const row[1] = {x + i * d};
    double out[1];
    dot_double(row[0], row, d, out);
    square[i] = out[0];
  }
}

}  // namespace smore::SMORE_LEVEL
