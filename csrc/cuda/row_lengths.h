// What is known of the row lengths of a CSR matrix on the device.
#pragma once

#include <cstdint>
#include <limits>

namespace smore::cuda {

struct RowLengths {
  int64_t longest = std::numeric_limits<int64_t>::max();  // an upper bound
  int64_t fixed = -1;                                     // the length of every row, or -1: unknown, or they differ
};

}  // namespace smore::cuda
