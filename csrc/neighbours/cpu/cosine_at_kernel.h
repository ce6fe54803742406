// Cosines of named pairs of rows, and their gradients. No torch here.
#pragma once

#include "neighbours/cosine_pairs.h"

namespace smore {

// similarity[e] of the pairs of rows [begin, end) of the features.
template <typename T>
void cosine_at(const CosinePairs<T>& pairs, T* similarity, int64_t begin, int64_t end);

// slope[e] of the pairs of rows [begin, end) of the features, from the gradient [n, k] of the similarities.
template <typename T>
void cosine_slopes(const CosinePairs<T>& pairs, const T* grad, const T* similarity, CosineSlope* slope, int64_t begin,
                   int64_t end);

// The pairs by their row of base: those of row j are at [start[j], start[j + 1]), in ascending order. start [m + 1].
struct CosinePair {
  int64_t row, pair;  // of features; its number
};
void pairs_by_base(const int64_t* index, int64_t n, int64_t k, int64_t m, int64_t* start, CosinePair* order);

// Gradients of rows [begin, end) of the features, or of base. For features that are the base, start and order give the
// pairs that come from other rows; otherwise they are null.
template <typename T>
void cosine_feature_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                             const CosinePair* order, T* grad_features, int64_t begin, int64_t end);
template <typename T>
void cosine_base_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                          const CosinePair* order, T* grad_base, int64_t begin, int64_t end);

}  // namespace smore
