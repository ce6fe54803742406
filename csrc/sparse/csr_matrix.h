// What a sparse product reads and writes, as every device sees it. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"

namespace smore {

template <typename T, typename I>
struct CsrMatrix {
  const I* rowptr;  // [n_rows + 1]
  const I* col;     // [n_edges]
  const T* weight;  // [n_edges]; null: all are 1
  int64_t n_rows;
  int64_t n_cols;
  int64_t n_edges;
};

// Where row r of the product goes: value = (addend + A x * inner[r]) * outer[r] * scale. With a coefficient, addend is
// multiplied by it; and if `both`, A x by the one that follows it in memory. S is the type in memory; arrays of S are
// [n_rows, width], row-major.
template <typename S>
struct SpmmOutput {
  S* y = nullptr;                               // the value; null if only its products are wanted
  const S* addend = nullptr;                    // null: nothing is added
  const Accumulator<S>* coefficient = nullptr;  // of addend, which there is then; null: 1
  bool both = false;
  const Accumulator<S>* inner = nullptr;  // [n_rows] each; null: 1
  const Accumulator<S>* outer = nullptr;
  Accumulator<S> scale = 1;
  const S* factor[2] = {};  // factor[i] null: no such product
  S* scaled[2] = {};        // scaled[i] = value * factor[i]
};

}  // namespace smore
