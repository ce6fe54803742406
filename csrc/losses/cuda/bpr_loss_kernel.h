// BPR and L2 terms of a batch and their dense gradients, on the device. No torch here. The same bits at every run: no
// sum depends on which thread came first.
#pragma once

#include "cuda/device.cuh"
#include "losses/bpr_batch.h"

namespace smore::cuda {

// Pointers of `batch` and all others are on the device. A triple with an id out of range has no share in any result.

// Elements of double that bpr_loss needs.
int64_t bpr_loss_scratch(int64_t size, const BprRule& rule = {});

// margin[b] = u.(p - n); bpr = mean softplus(-margin), or what the rule says; squares = sum (|u|^2 + |p|^2 + |n|^2) /
// 2, or the three sums, undivided; outside = number of triples with an id out of range. size > 0.
template <typename T>
void bpr_loss(const BprBatch<T>& batch, int64_t n_users, int64_t n_items, T* margin, T* bpr, T* squares,
              int64_t* outside, double* scratch, cudaStream_t stream, const BprRule& rule = {});

template <typename T>
struct BprBackward {
  BprBatch<T> batch;  // size > 0
  int64_t n_users, n_items;
  const T* margin;        // [size], of bpr_loss
  const T* grad_bpr;      // scalar
  const T* grad_squares;  // scalar, or [3]
  T* grad_user;           // [n_users, d], all of it is written
  T* grad_item;           // [n_items, d], likewise
  int32_t* scratch;       // bpr_backward_scratch elements
  T* slope;               // [size], scratch
  BprRule rule = {};
};

int64_t bpr_backward_scratch(int64_t size, int64_t n_users, int64_t n_items, const BprRule& rule = {});

template <typename T>
void bpr_backward(const BprBackward<T>& job, cudaStream_t stream);

}  // namespace smore::cuda
