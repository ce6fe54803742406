// BPR backward: dense gradients in one pass over the rows, each written once, zeros included (cuda/row_lists.cuh). Rows
// of users and items are numbered together.
#include "losses/cuda/bpr_loss_kernel.h"

#include <algorithm>
#include "cuda/launch.cuh"
#include "cuda/row_lists.cuh"

namespace smore::cuda {
namespace {

// An entry of a user's row is a position of the batch; one of an item's row is twice that, plus one for a negative.
struct Lists : RowLists {
  int32_t* row;        // [3, size] rows of user, positive and negative; -1 for a triple out of range
  int32_t* negatives;  // [rows] how many entries are negatives, where squares are apart; behind count, zeroed with it
};

Lists lists_in(int32_t* scratch, int64_t size, int64_t rows, bool apart) {
  Lists lists{};
  lists.entries = scratch;  // first, since it is to be aligned
  lists.count = lists.entries + rows * kListed;
  lists.negatives = lists.count + rows + 1;
  lists.long_rows = lists.negatives + (apart ? rows : 0);
  lists.row = lists.long_rows + most_long_rows(3 * size);
  return lists;
}

template <typename T, bool kApart>
__global__ void __launch_bounds__(kRowThreads)
    bpr_collect_kernel(BprBatch<T> batch, int n_users, int n_items, double gamma, const T* __restrict__ margin,
                       const T* __restrict__ grad_bpr, Lists lists, T* __restrict__ slope) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (b >= batch.size) return;
  const int64_t id[3] = {batch.users[b], batch.positives[b], batch.negatives[b]};
  const bool known = id[0] >= 0 && id[0] < n_users && id[1] >= 0 && id[1] < n_items && id[2] >= 0 && id[2] < n_items;
  // d(-log sigmoid(m))/dm = -sigmoid(-m)
  const double grad = static_cast<double>(*grad_bpr) / static_cast<double>(batch.size);
  const double m = static_cast<double>(margin[b]);
  slope[b] = static_cast<T>(kApart && gamma > 0 ? grad * bpr_gamma_slope(m, gamma) : -grad / (1.0 + exp(m)));
#pragma unroll
  for (int side = 0; side < 3; ++side) {
    const int row = known ? static_cast<int>(id[side]) + (side > 0 ? n_users : 0) : -1;
    lists.row[side * batch.size + b] = row;
    if (!known) continue;
    if (kApart && side == 2) atomicAdd(lists.negatives + row, 1);
    enter(lists, row, n_users + n_items, static_cast<int32_t>(side == 0 ? b : 2 * b + (side - 1)));
  }
}

// What a row of the gradients is made of.
template <typename T, int V>
struct Row {
  const BprBatch<T>& batch;
  const int32_t* __restrict__ rows;  // Lists::row
  const T* __restrict__ slope;
  int n_users, row;

  __device__ bool is_user() const { return row < n_users; }
  __device__ const T* user(int64_t of) const { return batch.user_rows + of * batch.d; }
  __device__ const T* item(int64_t of) const { return batch.item_rows + (of - n_users) * batch.d; }

  // Adds an entry's share to a piece of the row.
  __device__ void add(int entry, int64_t first, T (&sum)[kGroupElements]) const {
    const int64_t b = is_user() ? entry : entry / 2;
    if (is_user()) {
      const T c = slope[b];
      T p[kGroupElements], n[kGroupElements];
      load_piece<T, V>(item(rows[batch.size + b]), first, batch.d, p);
      load_piece<T, V>(item(rows[2 * batch.size + b]), first, batch.d, n);
#pragma unroll
      for (int e = 0; e < kGroupElements; ++e) sum[e] += c * (p[e] - n[e]);
    } else {
      const T c = entry % 2 == 0 ? slope[b] : -slope[b];
      T u[kGroupElements];
      load_piece<T, V>(user(rows[b]), first, batch.d, u);
#pragma unroll
      for (int e = 0; e < kGroupElements; ++e) sum[e] += c * u[e];
    }
  }

  // Where its embedding lies: every entry adds that, times the gradient of l2.
  __device__ const T* embedding() const { return is_user() ? user(row) : item(row); }
};

// The row's embedding times this is what its squares add to its gradient.
template <typename T, bool kApart>
__device__ __forceinline__ T squares_share(const T* __restrict__ grad_squares, const Lists& lists, bool is_user,
                                           int64_t row, int count) {
  if constexpr (kApart) {
    if (is_user) return static_cast<T>(count) * (T(2) * grad_squares[0]);
    const int negatives = lists.negatives[row];
    return static_cast<T>(count - negatives) * (T(2) * grad_squares[1]) +
           static_cast<T>(negatives) * (T(2) * grad_squares[2]);
  } else {
    return static_cast<T>(count) * *grad_squares;
  }
}

// A row that gets a whole block.
template <typename T, int V>
struct LongRow {
  const Row<T, V>& of;
  const int32_t* __restrict__ first_side;  // Lists::row of its users or positives
  T share;
  T* to;

  __device__ int64_t size() const { return of.batch.size; }
  __device__ bool has(int64_t b, int side) const {  // sides of an item: positive, negative
    return side == 0 ? first_side[b] == of.row : !of.is_user() && of.rows[2 * of.batch.size + b] == of.row;
  }
  __device__ int entry(int64_t b, int side) const { return static_cast<int>(of.is_user() ? b : 2 * b + side); }
  __device__ void add(int entry, int64_t first, T (&sum)[kGroupElements]) const { of.add(entry, first, sum); }
  __device__ T before(int64_t column) const { return share * of.embedding()[column]; }
  __device__ void finish(int64_t column, T total) const { to[column] = total; }
};

template <typename T, int V, bool kApart>
__global__ void __launch_bounds__(kRowThreads, 4)
    bpr_gradient_kernel(BprBatch<T> batch, int n_users, int n_rows, const T* __restrict__ grad_squares, Lists lists,
                        const T* __restrict__ slope, int long_blocks, T* __restrict__ grad_user,
                        T* __restrict__ grad_item) {
  const int64_t d = batch.d;
  const auto output = [&](int row) {
    return row < n_users ? grad_user + row * d : grad_item + static_cast<int64_t>(row - n_users) * d;
  };
  const int block = static_cast<int>(blockIdx.x);
  if (block < long_blocks) {
    SMORE_SHARED(int, list, [2 * kStretch]);
    SMORE_SHARED(int, totals, [kLooks][kRowWarps]);
    SMORE_SHARED(T, sums, [kGroups][kPiece]);
    const int n_long = lists.count[n_rows];
    for (int i = block; i < n_long; i += long_blocks) {
      const int row = lists.long_rows[i];
      const T share = squares_share<T, kApart>(grad_squares, lists, row < n_users, row, lists.count[row]);
      const Row<T, V> of{batch, lists.row, slope, n_users, row};
      add_long_row<T, V>(LongRow<T, V>{of, of.is_user() ? of.rows : of.rows + batch.size, share, output(row)}, d, list,
                         totals, sums);
    }
    return;
  }
  const int64_t at = static_cast<int64_t>(block - long_blocks) * kGroups + group_of_block();
  if (at >= n_rows) return;
  const Row<T, V> of{batch, lists.row, slope, n_users, static_cast<int>(at)};
  const int count = lists.count[at];
  if (count > kListed) return;  // a block has it
  int entry = group_lane() < count ? lists.entries[at * kListed + group_lane()] : kNoEntry;
  if (count > 1) entry = sorted_entry(entry, count);
  for (int64_t first = 0; first < d; first += kPiece) {
    T sum[kGroupElements] = {};
    if (count > 0) {
      const T share = squares_share<T, kApart>(grad_squares, lists, of.is_user(), at, count);
      load_piece<T, V>(of.embedding(), first, d, sum);
#pragma unroll
      for (int e = 0; e < kGroupElements; ++e) sum[e] *= share;
    }
    for (int k = 0; k < count; ++k) of.add(__shfl_sync(group_mask(), entry, k, kGroup), first, sum);
    store_piece<T, V>(sum, output(of.row), first, d);
  }
}

template <typename T, bool kApart>
void gradients(const BprBackward<T>& job, const Lists& lists, cudaStream_t stream) {
  const BprBatch<T>& batch = job.batch;
  const int64_t rows = job.n_users + job.n_items;
  SMORE_LAUNCH((bpr_collect_kernel<T, kApart>), (Launch{blocks_for(batch.size, kRowThreads), kRowThreads, stream}),
               batch, static_cast<int>(job.n_users), static_cast<int>(job.n_items), job.rule.gamma, job.margin,
               job.grad_bpr, lists, job.slope);
  const int long_blocks = static_cast<int>(std::min(kMostLongBlocks, most_long_rows(3 * batch.size)));
  const Launch at{blocks_for(rows, kGroups) + static_cast<unsigned>(long_blocks), kRowThreads, stream};
  if (packs_fit<T>(batch.d, batch.user_rows, batch.item_rows, job.grad_user, job.grad_item)) {
    SMORE_LAUNCH((bpr_gradient_kernel<T, kFullPack<T>, kApart>), at, batch, static_cast<int>(job.n_users),
                 static_cast<int>(rows), job.grad_squares, lists, job.slope, long_blocks, job.grad_user, job.grad_item);
  } else {
    SMORE_LAUNCH((bpr_gradient_kernel<T, 1, kApart>), at, batch, static_cast<int>(job.n_users), static_cast<int>(rows),
                 job.grad_squares, lists, job.slope, long_blocks, job.grad_user, job.grad_item);
  }
}

}  // namespace

int64_t bpr_backward_scratch(int64_t size, int64_t n_users, int64_t n_items, const BprRule& rule) {
  const int64_t rows = n_users + n_items;
  return rows * (kListed + (rule.apart ? 2 : 1)) + 1 + most_long_rows(3 * size) + 3 * size;
}

template <typename T>
void bpr_backward(const BprBackward<T>& job, cudaStream_t stream) {
  const int64_t rows = job.n_users + job.n_items, size = job.batch.size;
  const bool apart = job.rule.apart;
  if (rows >= INT32_MAX || size >= INT32_MAX / 2) {
    throw std::length_error("smore_ext: bpr_loss_backward: more than 2^31 rows or 2^30 triples");
  }
  const Lists lists = lists_in(job.scratch, size, rows, apart);
  const size_t counters = static_cast<size_t>(rows + 1 + (apart ? rows : 0));
  check("bpr_loss_backward", cudaMemsetAsync(lists.count, 0, counters * sizeof(int32_t), stream));
  if (apart) {
    gradients<T, true>(job, lists, stream);
  } else {
    gradients<T, false>(job, lists, stream);
  }
}

template void bpr_backward<float>(const BprBackward<float>&, cudaStream_t);
template void bpr_backward<double>(const BprBackward<double>&, cudaStream_t);

}  // namespace smore::cuda
