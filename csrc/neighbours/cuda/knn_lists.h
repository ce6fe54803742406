// Candidate lists of a run of rows in memory of torch's.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "neighbours/cuda/knn_kernel.h"

namespace smore {

template <typename T>
struct KnnListMemory {
  int64_t rows, k;
  T margin;
  at::Tensor scores, indices, count, bar;
  KnnListMemory(int64_t rows, int64_t k, T margin, const at::TensorOptions& floats)
      : rows(rows),
        k(k),
        margin(margin),
        scores(at::empty({rows, knn_capacity(k)}, floats)),
        indices(at::empty({rows, knn_capacity(k)}, floats.dtype(at::kInt))),
        count(at::empty({rows}, floats.dtype(at::kLong))),
        bar(at::empty({rows}, floats)) {}

  cuda::KnnLists<T> emptied(cudaStream_t stream) {
    const cuda::KnnLists<T> lists{k,
                                  knn_capacity(k),
                                  margin,
                                  scores.mutable_data_ptr<T>(),
                                  reinterpret_cast<uint32_t*>(indices.mutable_data_ptr<int32_t>()),
                                  count.mutable_data_ptr<int64_t>(),
                                  bar.mutable_data_ptr<T>()};
    cuda::knn_begin(lists, rows, stream);
    return lists;
  }
};

}  // namespace smore
