// Logarithms of sums of exponentials over rows of a @ b^T, which is never kept. No torch here.
//
// s_ij = a_i . b_j; log_sum_i = log sum_j exp(s_ij). Sizes are padded, and rows packed, as in info_nce_kernel.h.
#pragma once

#include <cstdint>

#include "losses/cpu/info_nce_kernel.h"

namespace smore {

// Rows [begin, end) of x [n, d] into rows [nce_padded(n), nce_padded(d)], zeros behind, times their weight [n] unless
// that is null; and their norms [nce_padded(n)] unless null.
template <typename T>
void lse_rows(const T* x, const T* weight, int64_t n, int64_t d, T* rows, T* norm, int64_t begin, int64_t end);

template <typename T>
struct LseForward {
  const T* a;         // rows, as written by lse_rows
  const T* a_norm;    // their norms
  const T* b_panels;  // rows of b, as written by nce_pack
  double b_norm;      // the largest norm among them
  int64_t n, m, d;
  T* log_sum;  // [n]
};

// Blocks [begin, end) of rows of a.
template <typename T>
void lse_forward(const LseForward<T>& job, int64_t begin, int64_t end);

// Gradient of sum_i weight_i log_sum_i. The longer of a and b is shared out in stripes; what the other receives is
// summed up stripe by stripe, for lse_finish.
template <typename T>
struct LseBackward {
  const T *a, *weighted;  // rows of a, and these times their weights
  const T* b;
  const T* panels;   // of the shorter one
  const T* weight;   // [n]
  const T* log_sum;  // [nce_padded(n)], of lse_forward
  int64_t n, m, d;
  T *grad_a, *grad_b;  // [n, d], [m, d]: lse_backward writes the longer one
  T* partial;          // [stripes][nce_padded(shorter)][nce_padded(d)]

  bool stripes_of_a() const { return n >= m; }
  int64_t stripes() const { return nce_stripes(stripes_of_a() ? n : m); }
  int64_t shorter() const { return stripes_of_a() ? m : n; }
};

// Stripes [begin, end).
template <typename T>
void lse_backward(const LseBackward<T>& job, int64_t begin, int64_t end);

// Gradient of rows [begin, end) of the shorter one, from the sums of all stripes.
template <typename T>
void lse_finish(const LseBackward<T>& job, int64_t begin, int64_t end);

}  // namespace smore
