// Products of a large table [n, width] with a narrow matrix: the linear layer over it, and its weight's gradient.
// No torch here.
#pragma once

#include <cstdint>

namespace smore {

// out = table @ weight^T + bias.
template <typename T>
struct TableForward {
  const T* table;   // [n, width]
  const T* panels;  // weight [d, width], packed by table_pack
  const T* bias;    // [d]
  int64_t n, width, d;
  T* out;  // [n, d]
};

// Elements that table_pack writes, over all blocks.
template <typename T>
int64_t table_packed_elements(int64_t width, int64_t d);
// The weight is packed in blocks of columns; [begin, end) of table_depth_blocks(width).
int64_t table_depth_blocks(int64_t width);
template <typename T>
void table_pack(const T* weight, int64_t width, int64_t d, T* panels, int64_t begin, int64_t end);

inline constexpr int64_t kTableRows = 32;
// Row blocks [begin, end), of kTableRows rows each.
template <typename T>
void table_forward(const TableForward<T>& job, int64_t begin, int64_t end);

// grad_weight = grad^T @ table.
template <typename T>
struct TableWeightGradient {
  const T* grad;   // [n, d]
  const T* table;  // [n, width]
  int64_t n, width, d;
  T* grad_weight;  // [d, width]
};

// Panels of columns of the table, the unit in which the work is shared out.
template <typename T>
int64_t table_panels(int64_t width);
template <typename T>
void table_weight_gradient(const TableWeightGradient<T>& job, int64_t begin, int64_t end);

}  // namespace smore
