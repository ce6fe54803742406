// Products of a graph's matrix as spmm and propagate share them: with a gradient, and under autocast.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace smore {

// A graph and its transpose, as they travel.
struct GraphTensors {
  at::Tensor rowptr, col, weight, t_rowptr, t_col, t_weight;
  GraphTensors t() const { return {t_rowptr, t_col, t_weight, rowptr, col, weight}; }
};

// What is multiplied: x by A (spmm), or by the mean of A^0 .. A^L or by A^L (propagate).
struct Power {
  bool is_spmm;
  int64_t n_layers = 1;
  bool mean = false;
  std::optional<at::Tensor> scale = std::nullopt;
};

// Of inputs that are checked.
at::Tensor differentiable_product(const GraphTensors& graph, const at::Tensor& x, const Power& power,
                                  const std::optional<at::Tensor>& gate);

// Under autocast to bfloat16, x and gate are held in bfloat16 (sums stay in float32, and so do the weights); under
// autocast to another type they are float32. float64 stays.
at::Tensor autocast_product(const GraphTensors& graph, const at::Tensor& x, const Power& power,
                            const std::optional<at::Tensor>& gate);

}  // namespace smore
