// Contract of sample_negatives, shared by every device. docs/spec.md, section 3: one uniform negative per positive.
//
// users [B] int64; seen as CSR, seen_rowptr [U+1] and seen_col ascending within a row; candidates [C] int64,
// 1 <= C < 2^31. Returns [B] int64: for position b a candidate that users[b] has not seen, uniform among those, drawn
// from Philox4x32-10 with key `seed` and counter (first + b, attempt, `offset`). A user who has seen every candidate is
// an error.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

inline constexpr int64_t kSamplePositions = int64_t{1} << 48;  // as many as the counter has room for

SMORE_OP(sample_negatives,
         at::Tensor(const at::Tensor& users, const at::Tensor& seen_rowptr, const at::Tensor& seen_col,
                    const at::Tensor& candidates, int64_t seed, int64_t offset, int64_t first));

inline void check_sample_negatives(const at::Tensor& users, const at::Tensor& seen_rowptr, const at::Tensor& seen_col,
                                   const at::Tensor& candidates, int64_t seed, int64_t offset, int64_t first) {
  constexpr const char* op = "sample_negatives";
  check_int64(op, "users", users);
  check_int64(op, "candidates", candidates);
  check_index_type(op, "seen_rowptr", seen_rowptr);
  check_same_type(op, "seen_col", seen_col, "seen_rowptr", seen_rowptr);
  check_dim(op, "users", users, 1);
  check_dim(op, "candidates", candidates, 1);
  check_dim(op, "seen_rowptr", seen_rowptr, 1);
  check_dim(op, "seen_col", seen_col, 1);
  check_same_device(op, "candidates", candidates, "users", users);
  check_same_device(op, "seen_rowptr", seen_rowptr, "users", users);
  check_same_device(op, "seen_col", seen_col, "users", users);
  SMORE_CHECK_VALUE(seen_rowptr.size(0) >= 1, op, "seen_rowptr must have users + 1 entries, got none");
  SMORE_CHECK_VALUE(candidates.size(0) >= 1 && candidates.size(0) < (int64_t{1} << 31), op,
                    "candidates must hold between 1 and 2^31 - 1 items, got ", candidates.size(0));
  SMORE_CHECK_VALUE(seed >= 0, op, "seed must be at least 0, got ", seed);
  SMORE_CHECK_VALUE(offset >= 0, op, "offset must be at least 0, got ", offset);
  SMORE_CHECK_VALUE(first >= 0 && first <= kSamplePositions - users.size(0), op, "first must be in 0..",
                    kSamplePositions, " minus the number of users, got ", first);
}

}  // namespace smore
