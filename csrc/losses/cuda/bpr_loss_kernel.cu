// BPR forward: 16 lanes a triple, sums of a block in double, one more launch for the sums of all blocks.
#include "losses/cuda/bpr_loss_kernel.h"

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/row_pieces.cuh"

namespace smore::cuda {
namespace {

constexpr unsigned kMostBlocks = 1024;
// Sums of a block: the loss, squares (all, or of users, positives, negatives), triples out of range.
template <bool kApart>
inline constexpr int kSums = kApart ? 5 : 3;

unsigned blocks_of(int64_t size) { return std::min(kMostBlocks, blocks_for(size, kGroups)); }

template <typename T>
__device__ __forceinline__ T group_sum(T value) {
#pragma unroll
  for (int bits = kGroup / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(group_mask(), value, bits, kGroup);
  return value;
}

// partial[sum][block]
template <typename T, int V, bool kApart>
__global__ void __launch_bounds__(kRowThreads)
    bpr_scores_kernel(BprBatch<T> batch, int64_t n_users, int64_t n_items, double gamma, T* __restrict__ margin,
                      double* __restrict__ partial) {
  constexpr int S = kSums<kApart>, kSquares = S - 2;
  SMORE_SHARED(double, sums, [S][kGroups]);
  const int64_t d = batch.d;
  double loss = 0, square[kSquares] = {}, outside = 0;
  for (int64_t b = static_cast<int64_t>(blockIdx.x) * kGroups + group_of_block(); b < batch.size;
       b += static_cast<int64_t>(gridDim.x) * kGroups) {
    const int64_t user = batch.users[b], positive = batch.positives[b], negative = batch.negatives[b];
    const bool known =
        user >= 0 && user < n_users && positive >= 0 && positive < n_items && negative >= 0 && negative < n_items;
    T m = 0, s[kSquares] = {};
    for (int64_t first = 0; known && first < d; first += kPiece) {
      T u[kGroupElements], p[kGroupElements], n[kGroupElements];
      load_piece<T, V>(batch.user_rows + user * d, first, d, u);
      load_piece<T, V>(batch.item_rows + positive * d, first, d, p);
      load_piece<T, V>(batch.item_rows + negative * d, first, d, n);
#pragma unroll
      for (int e = 0; e < kGroupElements; ++e) {
        m += u[e] * (p[e] - n[e]);
        if constexpr (kApart) {
          s[0] += u[e] * u[e];
          s[1] += p[e] * p[e];
          s[2] += n[e] * n[e];
        } else {
          s[0] += u[e] * u[e] + p[e] * p[e] + n[e] * n[e];
        }
      }
    }
    m = group_sum(m);
#pragma unroll
    for (int side = 0; side < kSquares; ++side) s[side] = group_sum(s[side]);
    if (group_lane() != 0) continue;
    margin[b] = m;
    if (known) {
      const double x = static_cast<double>(m);
      loss += kApart && gamma > 0 ? bpr_gamma_loss(x, gamma) : max(-x, 0.0) + log1p(exp(-fabs(x)));
#pragma unroll
      for (int side = 0; side < kSquares; ++side) square[side] += static_cast<double>(s[side]);
    } else {
      outside += 1;
    }
  }
  if (group_lane() == 0) {
    sums[0][group_of_block()] = loss;
#pragma unroll
    for (int side = 0; side < kSquares; ++side) sums[1 + side][group_of_block()] = square[side];
    sums[S - 1][group_of_block()] = outside;
  }
  __syncthreads();
  if (threadIdx.x >= S) return;
  double total = 0;
  for (int g = 0; g < kGroups; ++g) total += sums[threadIdx.x][g];
  partial[threadIdx.x * gridDim.x + blockIdx.x] = total;
}

// One warp for each of the sums.
template <typename T, bool kApart>
__global__ void bpr_reduce_kernel(const double* __restrict__ partial, int blocks, int64_t size, T* bpr, T* squares,
                                  int64_t* outside) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, sum = static_cast<int>(threadIdx.x) / kWarp;
  double total = 0;
  for (int block = lane; block < blocks; block += kWarp) total += partial[sum * blocks + block];
#pragma unroll
  for (int bits = kWarp / 2; bits > 0; bits /= 2) total += __shfl_xor_sync(kAllLanes, total, bits);
  if (lane != 0) return;
  if (sum == 0) {
    *bpr = static_cast<T>(total / static_cast<double>(size));
  } else if (sum == kSums<kApart> - 1) {
    *outside = static_cast<int64_t>(total);
  } else {
    squares[sum - 1] = static_cast<T>(kApart ? total : 0.5 * total);
  }
}

template <typename T, bool kApart>
void loss_of(const BprBatch<T>& batch, int64_t n_users, int64_t n_items, double gamma, T* margin, T* bpr, T* squares,
             int64_t* outside, double* scratch, cudaStream_t stream) {
  const unsigned blocks = blocks_of(batch.size);
  const Launch at{blocks, kRowThreads, stream};
  if (packs_fit<T>(batch.d, batch.user_rows, batch.item_rows)) {
    SMORE_LAUNCH((bpr_scores_kernel<T, kFullPack<T>, kApart>), at, batch, n_users, n_items, gamma, margin, scratch);
  } else {
    SMORE_LAUNCH((bpr_scores_kernel<T, 1, kApart>), at, batch, n_users, n_items, gamma, margin, scratch);
  }
  SMORE_LAUNCH((bpr_reduce_kernel<T, kApart>), (Launch{1, kSums<kApart> * kWarp, stream}), scratch,
               static_cast<int>(blocks), batch.size, bpr, squares, outside);
}

}  // namespace

int64_t bpr_loss_scratch(int64_t size, const BprRule& rule) {
  return (rule.apart ? kSums<true> : kSums<false>)*static_cast<int64_t>(blocks_of(size));
}

template <typename T>
void bpr_loss(const BprBatch<T>& batch, int64_t n_users, int64_t n_items, T* margin, T* bpr, T* squares,
              int64_t* outside, double* scratch, cudaStream_t stream, const BprRule& rule) {
  const auto run = rule.apart ? &loss_of<T, true> : &loss_of<T, false>;
  run(batch, n_users, n_items, rule.gamma, margin, bpr, squares, outside, scratch, stream);
}

template void bpr_loss<float>(const BprBatch<float>&, int64_t, int64_t, float*, float*, float*, int64_t*, double*,
                              cudaStream_t, const BprRule&);
template void bpr_loss<double>(const BprBatch<double>&, int64_t, int64_t, double*, double*, double*, int64_t*, double*,
                               cudaStream_t, const BprRule&);

}  // namespace smore::cuda
