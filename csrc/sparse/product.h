// Products of a graph's matrix as spmm and propagate share them: with gradients, and under autocast.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "sparse/graph.h"

namespace smore {

// What is multiplied: x by A (spmm), or by the mean of A^0 .. A^L or by A^L (propagate).
struct Power {
  bool is_spmm;
  int64_t n_layers = 1;
  bool mean = false;
  std::optional<at::Tensor> scale = std::nullopt;
};

// Of inputs that are checked. A weight gets a gradient from A alone (spmm).
at::Tensor differentiable_product(const GraphTensors& graph, const at::Tensor& x, const Power& power,
                                  const std::optional<at::Tensor>& gate);

// Under autocast to bfloat16, x and gate are held in bfloat16 (sums stay in float32, and so do the weights); under
// autocast to another type they are float32. float64 stays.
at::Tensor autocast_product(const GraphTensors& graph, const at::Tensor& x, const Power& power,
                            const std::optional<at::Tensor>& gate);

}  // namespace smore
