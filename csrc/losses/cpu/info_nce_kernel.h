// InfoNCE between rows of two matrices without a batch x batch matrix. No torch here.
//
// s_ij = x_i . y_j / temperature for rows of length one; loss_i = log sum_j exp(s_ij) - s_ii.
#pragma once

#include <cstdint>

namespace smore {

// Rows are worked on in blocks; padded sizes are multiples of it.
inline constexpr int64_t kNceBlock = 64;
inline int64_t nce_padded(int64_t n) { return (n + kNceBlock - 1) / kNceBlock * kNceBlock; }

// Exponents in 0..-kNceRange keep their precision in float32.
inline constexpr double kNceRange = 80.0;

// Rows [begin, end) of x [n, d], divided by max(norm, 1e-12), into unit [nce_padded(n), nce_padded(d)], zeros
// behind.
template <typename T>
void nce_normalise(const T* x, int64_t n, int64_t d, T* unit, T* norm, int64_t begin, int64_t end);

// Padded rows transposed into register panels: nce_padded(n) * d elements. Blocks [begin, end).
template <typename T>
void nce_pack(const T* rows, int64_t n, int64_t d, T* panels, int64_t begin, int64_t end);

template <typename T>
struct NceForward {
  const T* x;         // unit rows, as written by nce_normalise
  const T* y;         // unit rows
  const T* y_panels;  // y, as written by nce_pack
  int64_t n, d;
  double temperature;
  T* lse;                     // [nce_padded(n)]: log sum_j exp(s_ij)
  T* loss;                    // [n]
  const T* counts = nullptr;  // [nce_padded(n)], zeros behind, or null: exp(s_ij) times counts_j, loss_i times counts_i
};

template <typename T>
void nce_forward(const NceForward<T>& job, int64_t begin, int64_t end);

// Gradient of sum_i loss_i, times `scale`. A block of probabilities is computed once and serves both sides: rows of x
// add up their own gradient, and what the rows of y receive is summed up stripe by stripe of x, for nce_finish.
template <typename T>
struct NceBackward {
  const T* x;         // unit rows
  const T* x_norm;    // their norms before normalising
  const T* y;         // unit rows
  const T* y_panels;  // the same, packed
  const T* lse;       // [nce_padded(n)], of nce_forward
  int64_t n, d;
  double temperature, scale;
  T* grad_x;                  // [n, d]
  T* partial;                 // [nce_stripes(n)][nce_padded(n)][nce_padded(d)]
  const T* counts = nullptr;  // as in NceForward
};

// Stripes of x, the unit in which the work is shared out. Their number does not depend on the threads.
inline constexpr int64_t nce_stripes(int64_t n) {
  const int64_t blocks = (n + kNceBlock - 1) / kNceBlock;
  return blocks < 8 ? blocks : 8;
}

// Stripes [begin, end).
template <typename T>
void nce_backward(const NceBackward<T>& job, int64_t begin, int64_t end);

// Gradient of rows [begin, end) of y, from the sums of all stripes.
template <typename T>
struct NceFinish {
  const T* partial;
  const T* y;       // unit rows
  const T* y_norm;  // their norms before normalising
  int64_t n, d;
  double scale;
  T* grad_y;  // [n, d]
};

template <typename T>
void nce_finish(const NceFinish<T>& job, int64_t begin, int64_t end);

}  // namespace smore
