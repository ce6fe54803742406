// InfoNCE between rows of two matrices without a batch x batch matrix. No torch here.
//
// s_ij = x_i . y_j / temperature for rows of length one; loss_i = log sum_j exp(s_ij) - s_ii.
#pragma once

#include <cstdint>

namespace smore {

// Rows are worked on in blocks; padded sizes are multiples of it.
inline constexpr int64_t kNceBlock = 64;
inline int64_t nce_padded(int64_t n) { return (n + kNceBlock - 1) / kNceBlock * kNceBlock; }

// Rows [begin, end) of x [n, d], divided by max(norm, 1e-12), into unit [nce_padded(n), nce_padded(d)], zeros
// behind.
template <typename T>
void nce_normalise(const T* x, int64_t n, int64_t d, T* unit, T* norm, int64_t begin, int64_t end);

// unit rows transposed into register panels: nce_padded(n) * d elements. Blocks [begin, end).
template <typename T>
void nce_pack(const T* unit, int64_t n, int64_t d, T* panels, int64_t begin, int64_t end);

template <typename T>
struct NceForward {
  const T* x;         // unit rows, as written by nce_normalise
  const T* y;         // unit rows
  const T* y_panels;  // y, as written by nce_pack
  int64_t n, d;
  double temperature;
  T* lse;   // [nce_padded(n)]: log sum_j exp(s_ij)
  T* loss;  // [n]
};

template <typename T>
void nce_forward(const NceForward<T>& job, int64_t begin, int64_t end);

// Gradient of sum_i loss_i, times `scale`, for the rows of one side; the other side's rows are the columns.
template <typename T>
struct NceBackward {
  const T* row;            // unit rows of this side
  const T* norm;           // their norms before normalising
  const T* column;         // unit rows of the other side
  const T* column_panels;  // the same, packed
  const T* lse;            // of nce_forward
  bool lse_of_row;         // lse belongs to this side's rows (x) or to the columns (y)
  int64_t n, d;
  double temperature, scale;
  T* grad;  // [n, d]
};

template <typename T>
void nce_backward(const NceBackward<T>& job, int64_t begin, int64_t end);

}  // namespace smore
