// Contract of gather_rows, shared by every device: rows of tables by their numbers.
//
// T tables [N, d_t], all of them float32, float64 or bfloat16; index [B] int64. Returns T arrays [B, d_t]: row b is row
// index[b] of the table, bit for bit. gather_rows_backward(grads: T x [B, d_t], index, n) returns T x [n, d_t]: row r
// is the sum of the rows b with index[b] = r, in a fixed order (on the CPU by ascending b), in float32 where they are
// bfloat16; zeros for a row that nobody named. The lists of who named a row are made once for all tables.
// check: whether a GPU is waited for to say that an index is out of range. Such a row is zeros if not.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(gather_rows, std::vector<at::Tensor>(at::TensorList tables, const at::Tensor& index, bool check));
SMORE_OP(gather_rows_backward, std::vector<at::Tensor>(at::TensorList grads, const at::Tensor& index, c10::SymInt n));

// As many as every table must have.
inline c10::SymInt rows_in(at::TensorList tables) {
  return tables.empty() || tables[0].dim() == 0 ? c10::SymInt(0) : tables[0].sym_size(0);
}

// rows: of each table.
inline void check_gather_rows(const char* op, const char* name, at::TensorList tables, const at::Tensor& index,
                              const c10::SymInt& rows) {
  SMORE_CHECK_VALUE(!tables.empty(), op, name, " must hold at least one tensor, got none");
  for (const at::Tensor& table : tables) {
    const auto type = table.scalar_type();
    SMORE_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16, op, name,
                     " must be float32, float64 or bfloat16, got ", type);
    check_same_type(op, name, table, "the first", tables[0]);
    check_same_device(op, name, table, "the first", tables[0]);
    check_dim(op, name, table, 2);
    SMORE_CHECK_VALUE(table.sym_size(0) == rows, op, name, " must have ", rows, " rows, got ", table.sym_size(0));
  }
  check_int64(op, "index", index);
  check_dim(op, "index", index, 1);
  check_same_device(op, "index", index, name, tables[0]);
}

}  // namespace smore
