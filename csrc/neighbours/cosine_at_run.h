// What the bindings of cosine_at share on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "neighbours/cosine_pairs.h"

namespace smore {

// Contiguous inputs and the raw view of them.
struct CosineInputs {
  at::Tensor features, base, index;
  bool self;
  CosineInputs(const at::Tensor& f, const at::Tensor& i, const std::optional<at::Tensor>& b)
      : features(f.contiguous()),
        base(b.has_value() ? b->contiguous() : features),
        index(i.contiguous()),
        self(!b.has_value()) {}
  // square, base_square: squared norms of the rows, in double.
  template <typename T>
  CosinePairs<T> view(const at::Tensor& square, const at::Tensor& base_square) const {
    return {features.const_data_ptr<T>(),
            square.const_data_ptr<double>(),
            base.const_data_ptr<T>(),
            base_square.const_data_ptr<double>(),
            index.const_data_ptr<int64_t>(),
            features.size(0),
            base.size(0),
            index.size(1),
            features.size(1),
            self};
  }
};

}  // namespace smore
