// BPR and L2 terms of a batch, with the gathers before and the scatter behind them. No torch here.
#pragma once

#include <cstdint>

#include "losses/bpr_batch.h"

namespace smore {

// margin[b] = u.(p - n); square[b] = |u|^2 + |p|^2 + |n|^2, for b in [begin, end).
template <typename T>
void bpr_scores(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end);

// margin[b]; square[b], square[size + b] and square[2 size + b] = |u|^2, |p|^2 and |n|^2.
template <typename T>
void bpr_scores_apart(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end);

// softplus(-margin) = -log sigmoid(margin), without overflow.
double bpr_softplus(double margin);

struct BprGradient {
  double bpr;                          // dL/d(bpr) / size
  double users, positives, negatives;  // what a row adds of itself: dL/d(l2), or twice dL/d(its sum of squares)
  double gamma;
};

// Adds to grad_user rows [begin, end): only batch entries whose user lies there, in batch order, so the sums
// do not depend on how rows are shared out.
template <typename T>
void bpr_user_gradient(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_user, int64_t begin,
                       int64_t end);

// The same for items; an entry adds its positive first, then its negative.
template <typename T>
void bpr_item_gradient(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_item, int64_t begin,
                       int64_t end);

}  // namespace smore
