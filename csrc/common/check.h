// Input checks. Each message reads "smore_ext::<op>: <what must hold>, got <what came>", and a way out if there is one.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <initializer_list>
#include <limits>

#define SMORE_CHECK_VALUE(cond, op, ...) TORCH_CHECK_VALUE(cond, "smore_ext::", op, ": ", __VA_ARGS__)
#define SMORE_CHECK_TYPE(cond, op, ...) TORCH_CHECK_TYPE(cond, "smore_ext::", op, ": ", __VA_ARGS__)
#define SMORE_CHECK_INDEX(cond, op, ...) TORCH_CHECK_INDEX(cond, "smore_ext::", op, ": ", __VA_ARGS__)

namespace smore {

inline void check_floating(const char* op, const char* name, const at::Tensor& t) {
  SMORE_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, op, name,
                   " must be float32 or float64, got ", t.scalar_type(), ": ", name, ".float() is");
}

inline void check_index_type(const char* op, const char* name, const at::Tensor& t) {
  SMORE_CHECK_TYPE(t.scalar_type() == at::kInt || t.scalar_type() == at::kLong, op, name,
                   " must be int32 or int64, got ", t.scalar_type());
}

inline void check_int64(const char* op, const char* name, const at::Tensor& t) {
  SMORE_CHECK_TYPE(t.scalar_type() == at::kLong, op, name, " must be int64, got ", t.scalar_type(), ": ", name,
                   ".long() is");
}

// Sizes may be symbolic: torch.compile traces the checks of ops with an Autograd kernel, and one graph serves for any
// number of rows.

inline void check_dim(const char* op, const char* name, const at::Tensor& t, int64_t dim) {
  SMORE_CHECK_VALUE(t.dim() == dim, op, name, " must have ", dim, " dimension", dim == 1 ? "" : "s", ", got shape ",
                    t.sym_sizes());
}

inline void check_shape(const char* op, const char* name, const at::Tensor& t, c10::SymIntArrayRef shape) {
  SMORE_CHECK_VALUE(t.sym_sizes() == shape, op, name, " must have shape ", shape, ", got ", t.sym_sizes());
}

inline void check_same_type(const char* op, const char* name, const at::Tensor& t, const char* other_name,
                            const at::Tensor& other) {
  SMORE_CHECK_TYPE(t.scalar_type() == other.scalar_type(), op, name, " must have the dtype of ", other_name, " (",
                   other.scalar_type(), "), got ", t.scalar_type());
}

inline void check_same_device(const char* op, const char* name, const at::Tensor& t, const char* other_name,
                              const at::Tensor& other) {
  SMORE_CHECK_VALUE(t.device() == other.device(), op, name, " must be on the device of ", other_name, " (",
                    other.device(), "), got ", t.device());
}

inline void check_id(const char* op, const char* name, int64_t id, int64_t limit, int64_t position) {
  SMORE_CHECK_INDEX(id >= 0 && id < limit, op, name, " must be in 0..", limit - 1, ", got ", id, " at position ",
                    position);
}

inline void check_row_ends(const char* op, int64_t first, int64_t last, int64_t n_edges) {
  SMORE_CHECK_INDEX(first == 0 && last == n_edges, op, "rowptr must run from 0 to the number of edges (", n_edges,
                    "), got ", first, " to ", last);
}

inline constexpr int64_t kAnyColumn = std::numeric_limits<int64_t>::max();  // n_cols where columns do not matter

// name: of what lies in the rows.
inline void check_entries(const char* op, bool valid, int64_t n_cols, const char* name = "col") {
  SMORE_CHECK_INDEX(valid || n_cols != kAnyColumn, op, "rowptr must not decrease, got an entry that does");
  SMORE_CHECK_INDEX(valid, op, "rowptr must not decrease and every ", name, " must be in 0..", n_cols - 1,
                    ", got an entry outside");
}

}  // namespace smore
