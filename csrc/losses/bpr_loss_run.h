// What the bindings of bpr_loss share on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include "losses/bpr_batch.h"

namespace smore {

// Contiguous inputs and the raw view of them.
struct BprInputs {
  at::Tensor user_rows, item_rows, users, positives, negatives;
  BprInputs(const at::Tensor& u, const at::Tensor& i, const at::Tensor& users, const at::Tensor& positives,
            const at::Tensor& negatives)
      : user_rows(u.contiguous()),
        item_rows(i.contiguous()),
        users(users.contiguous()),
        positives(positives.contiguous()),
        negatives(negatives.contiguous()) {}
  template <typename T>
  BprBatch<T> view() const {
    return {user_rows.const_data_ptr<T>(),
            item_rows.const_data_ptr<T>(),
            users.const_data_ptr<int64_t>(),
            positives.const_data_ptr<int64_t>(),
            negatives.const_data_ptr<int64_t>(),
            users.size(0),
            user_rows.size(1)};
  }
};

}  // namespace smore
