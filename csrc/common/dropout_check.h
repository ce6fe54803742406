// Checks of what an op that drops elements is told: share, seed, and an offset as a number or in a tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "common/check.h"

namespace smore {

// x: the argument `name` whose device the offset's tensor must be on.
inline void check_dropout_rule(const char* op, const char* name, const at::Tensor& x, double p, int64_t seed,
                               int64_t offset, const std::optional<at::Tensor>& step) {
  SMORE_CHECK_VALUE(p >= 0 && p < 1, op, "p must be at least 0 and less than 1, got ", p);
  SMORE_CHECK_VALUE(seed >= 0, op, "seed must be at least 0, got ", seed);
  SMORE_CHECK_VALUE(offset >= 0, op, "offset must be at least 0, got ", offset);
  if (!step) return;
  check_int64(op, "offset", *step);
  check_same_device(op, "offset", *step, name, x);
  SMORE_CHECK_VALUE(step->sym_numel() == 1, op, "offset must have one element, got shape ", step->sym_sizes());
}

}  // namespace smore
