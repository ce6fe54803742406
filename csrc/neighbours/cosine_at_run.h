// What the bindings of cosine_at share on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "neighbours/cosine_pairs.h"
#include "neighbours/row_range.h"

namespace smore {

// Contiguous inputs, rows brought into range if `wait` says that the device may be waited for, and the raw view of
// them.
struct CosineInputs {
  RangedRows features, base;
  at::Tensor index;
  bool self;
  CosineInputs(const at::Tensor& f, const at::Tensor& i, const std::optional<at::Tensor>& b, bool wait = true)
      : features(wait ? ranged(f.contiguous()) : RangedRows{f.contiguous(), {}}),
        base(!b.has_value() ? features
             : wait         ? ranged(b->contiguous())
                            : RangedRows{b->contiguous(), {}}),
        index(i.contiguous()),
        self(!b.has_value()) {}
  // square, base_square: squared norms of the rows, in double.
  template <typename T>
  CosinePairs<T> view(const at::Tensor& square, const at::Tensor& base_square) const {
    return {features.rows.const_data_ptr<T>(),
            square.const_data_ptr<double>(),
            base.rows.const_data_ptr<T>(),
            base_square.const_data_ptr<double>(),
            index.const_data_ptr<int64_t>(),
            features.rows.size(0),
            base.rows.size(0),
            index.size(1),
            features.rows.size(1),
            self};
  }
};

}  // namespace smore
