// Contract of masked_topk, shared by every device. docs/spec.md, section 3: ranking over all items, seen ones masked.
//
// users [U, d], items [I, d], both float32 or both float64; 1 <= k <= I < 2^32. seen_rowptr [U+1] and seen_col list
// the items to leave out for each user, ascending within a row (None: nothing is left out). Returns score [U,
// k] and index [U, k] (int64), score descending, then index ascending; places with nothing left hold -inf and
// -1. Not differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/op.h"

namespace smore {

SMORE_OP(masked_topk, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& users, const at::Tensor& items, int64_t k,
                                                         const std::optional<at::Tensor>& seen_rowptr,
                                                         const std::optional<at::Tensor>& seen_col));

inline void check_masked_topk(const at::Tensor& users, const at::Tensor& items, int64_t k,
                              const std::optional<at::Tensor>& seen_rowptr, const std::optional<at::Tensor>& seen_col) {
  constexpr const char* op = "masked_topk";
  check_floating(op, "users", users);
  check_dim(op, "users", users, 2);
  check_dim(op, "items", items, 2);
  check_same_type(op, "items", items, "users", users);
  check_same_device(op, "items", items, "users", users);
  SMORE_CHECK_VALUE(users.size(1) == items.size(1), op, "users and items must have the same width, got ", users.size(1),
                    " and ", items.size(1));
  SMORE_CHECK_VALUE(k >= 1 && k <= items.size(0), op, "k must be in 1..", items.size(0), " (the number of items), got ",
                    k);
  SMORE_CHECK_VALUE(items.size(0) < int64_t{1} << 32, op, "items must have fewer than 2^32 rows, got ", items.size(0));
  SMORE_CHECK_VALUE(seen_rowptr.has_value() == seen_col.has_value(), op,
                    "seen_rowptr and seen_col must come together, got only one");
  if (seen_rowptr.has_value()) {
    check_index_type(op, "seen_rowptr", *seen_rowptr);
    check_same_type(op, "seen_col", *seen_col, "seen_rowptr", *seen_rowptr);
    check_same_device(op, "seen_rowptr", *seen_rowptr, "users", users);
    check_same_device(op, "seen_col", *seen_col, "users", users);
    check_shape(op, "seen_rowptr", *seen_rowptr, {users.sym_size(0) + 1});
    check_dim(op, "seen_col", *seen_col, 1);
  }
}

// Calls f with a value of the type of the scores and one of the type of the indices of seen items (int64 without any).
template <typename F>
void dispatch_topk(const at::Tensor& users, const at::Tensor& seen_rowptr, const F& f) {
  dispatch_floating(users, [&](auto t) {
    if (!seen_rowptr.defined()) return f(t, int64_t());
    dispatch_index(seen_rowptr, [&](auto i) { f(t, i); });
  });
}

}  // namespace smore
