// Cosines of named pairs of rows, and their gradients, on the device: bit for bit those of the CPU. No torch here.
//
// A pair whose index is out of range has cosine 0 and no share in any gradient.
#pragma once

#include "cuda/device.cuh"
#include "neighbours/cosine_pairs.h"

namespace smore::cuda {

// similarity[e] of all pairs.
template <typename T>
void cosine_at(const CosinePairs<T>& pairs, T* similarity, cudaStream_t stream);

// slope[e] of all pairs, from the gradient [n, k] of the similarities.
template <typename T>
void cosine_slopes(const CosinePairs<T>& pairs, const T* grad, const T* similarity, CosineSlope* slope,
                   cudaStream_t stream);

// The pairs by their row of base: the numbers of those of row j are order[start[j]] to order[start[j + 1] - 1],
// ascending. Both null: not known.
struct PairsByBase {
  const int64_t* start;  // [m + 1]
  const int64_t* order;  // [n k]
};

// All of the gradient of the features, or of base. For features that are the base, `incoming` gives the pairs that come
// from other rows; otherwise the first takes no note of it.
template <typename T>
void cosine_feature_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const PairsByBase& incoming,
                             T* grad_features, cudaStream_t stream);
template <typename T>
void cosine_base_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const PairsByBase& incoming,
                          T* grad_base, cudaStream_t stream);

}  // namespace smore::cuda
