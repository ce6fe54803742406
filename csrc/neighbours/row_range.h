// Rows of float64 whose squared norms leave its range. A cosine does not depend on the lengths of rows, and a power of
// two changes no bit of a number but its exponent: such rows are multiplied by one.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/where.h>

#include <limits>

namespace smore {

struct RangedRows {
  at::Tensor rows;
  at::Tensor factor;  // [N, 1], what they were multiplied with; undefined where they are as they came

  // From the gradient of the rows to that of the rows as they came.
  at::Tensor gradient(const at::Tensor& grad) const {
    return factor.defined() && grad.size(0) > 0 ? grad * factor : grad;
  }
};

// rows [N, d]. Waits for the device, and looks at rows of float64 alone: float32 has squares within double's range.
inline RangedRows ranged(const at::Tensor& rows) {
  constexpr double kSmallest = 1e-140, kLargest = 1e140;
  if (rows.scalar_type() != at::kDouble || rows.numel() == 0) return {rows, {}};
  const at::Tensor size = at::linalg_vector_norm(rows, std::numeric_limits<double>::infinity(), 1, true);
  const at::Tensor small = (size < kSmallest) & (size > 0);
  const at::Tensor large = (size > kLargest) & (size < std::numeric_limits<double>::infinity());
  const at::Tensor beyond = small | large;
  if (!beyond.any().item<bool>()) return {rows, {}};
  constexpr int64_t kBias = 1023, kMantissaBits = 52, kMost = 1000;
  const at::Tensor exponent = std::get<1>(at::frexp(size)).to(at::kLong).clamp(-kMost, kMost);
  const at::Tensor power = at::bitwise_left_shift(kBias - at::where(beyond, exponent, 0), kMantissaBits);
  const at::Tensor factor = power.view(at::kDouble);
  return {rows * factor, factor};
}

}  // namespace smore
