// Gradients of sums of exponentials of scores. A block owns a tile of rows of one side, goes through a range of the
// other's, computes the scores again and adds up in registers. So scores are computed once for each side; computing
// them once for both would mean a partial sum for one of the sides from every block, memory that grows with rows x
// columns.
#pragma once

#include "losses/cuda/info_nce_tile.cuh"

namespace smore::cuda {

// Rows of one side, laid out as info_nce_tile.cuh says.
template <typename T>
struct ScoreSide {
  const T* panels;  // for scores
  const T* terms;   // plain: what the other side's gradients are sums of
};

template <typename T>
struct GradientTile {
  static constexpr int P = kPanel<T>, R = kTileRows<T>;
  static constexpr int kStep = R + 4;  // the packs of P that a quarter of a warp writes fall into different banks
  static constexpr int kElements = P * R + P * P + P * P + P * kStep + R + P;
};

// The share of the other side's range number blockIdx.y in the gradient of the own rows of tile blockIdx.x, elements
// [piece, piece + kPanel) of the width, to partial[split][rows][width]. `log_sum` belongs to the own rows, or to the
// others. kDiagonal: 1 is subtracted from the probability of a row with its like. kOnePiece: width = kPanel.
template <typename T, bool kOnePiece, bool kDiagonal>
__device__ __forceinline__ void score_gradient(const ScoreSide<T>& own_side, const ScoreSide<T>& other_side,
                                               const NceShape<T>& shape, const NceShape<T>& other_shape, bool of_own,
                                               const T* __restrict__ log_sum, T inverse, int piece_begin,
                                               T* __restrict__ partial) {
  using Layout = GradientTile<T>;
  constexpr int P = kPanel<T>, R = kTileRows<T>, E = kEdge<T>, V = kFullPack<T>;
  constexpr int kAtOnce = kOnePiece ? 4 : 2, kSteps = 2;  // as many as fit the registers
  SMORE_DYNAMIC_SHARED(T, own);                           // [P][R]: own rows, transposed
  T* other = own + P * R;                                 // [P][P]: the other side's, transposed
  T* other_rows = other + P * P;                          // [P][P]: a piece of them, plain
  T* probability = other_rows + P * P;                    // [P][R], as [other][own]
  T* own_shift = probability + P * Layout::kStep;
  T* other_shift = own_shift + R;

  const T *own_panels = own_side.panels, *other_panels = other_side.panels, *plain = other_side.terms;
  const int width = kOnePiece ? P : shape.width, piece = kOnePiece ? 0 : piece_begin;
  const int n = static_cast<int>(shape.n), n_other = static_cast<int>(other_shape.n);
  const int first_own = static_cast<int>(blockIdx.x) * R;
  const int t = static_cast<int>(threadIdx.x);
  for (int r = t; r < R; r += kNceThreads) own_shift[r] = of_own && first_own + r < n ? log_sum[first_own + r] : T(0);

  if (kOnePiece) copy_row_tile<kAtOnce>(own_panels, width, blockIdx.x, 0, own);

  const NceThread thread;
  T gradient[E][E] = {};
  const int begin = range_begin(other_shape.panels, blockIdx.y), end = range_begin(other_shape.panels, blockIdx.y + 1);
  for (int panel = begin; panel < end; ++panel) {
    T s[E][E] = {};
    for (int first = 0; first < width; first += P) {
      __syncthreads();
      if (!kOnePiece) copy_row_tile<kAtOnce>(own_panels, width, blockIdx.x, first, own);
      copy_panel<kAtOnce>(other_panels, width, panel, first, other);
      if (first == 0) {
        copy_panel_rows<kAtOnce>(plain, width, panel, piece, other_rows);
        const int row = panel * P + t;
        if (t < P) {
          other_shift[t] = row >= n_other ? -kLowest<T> : of_own ? T(0) : log_sum[row];
        }
      }
      __syncthreads();
      multiply_tiles<kSteps>(thread, own, R, other, s);
    }
    const int ahead = panel * P - first_own;
    const bool diagonal = kDiagonal && ahead < R && ahead > -P;  // it passes through the tile
#pragma unroll
    for (int c = 0; c < E; ++c) {
      const int column = thread.column<T>(c);
      const T shift = other_shift[column];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Pack<T, V> pack = load_pack<V>(own_shift + thread.row<T>(half * V));
#pragma unroll
        for (int v = 0; v < V; ++v) {  // one of the two shifts is 0
          const T score = s[half * V + v][c] * inverse;
          pack.at[v] = exponential(score - (pack.at[v] + shift));
          if (diagonal && thread.row<T>(half * V + v) == column + ahead) pack.at[v] -= T(1);
        }
        store_pack(probability + column * Layout::kStep + thread.row<T>(half * V), pack);
      }
    }
    __syncthreads();
    multiply_tiles<kSteps>(thread, probability, Layout::kStep, other_rows, gradient);
  }
  T* to = partial + static_cast<int64_t>(blockIdx.y) * shape.rows * width + piece;
#pragma unroll
  for (int r = 0; r < E; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Pack<T, V> pack;
#pragma unroll
      for (int v = 0; v < V; ++v) pack.at[v] = gradient[r][half * V + v];
      store_pack(to + static_cast<int64_t>(first_own + thread.row<T>(r)) * width + thread.column<T>(half * V), pack);
    }
  }
}

template <typename T>
inline constexpr size_t kScoreGradientShared = static_cast<size_t>(GradientTile<T>::kElements) * sizeof(T);

// Into how many ranges the other side is split, for so many tiles of own rows.
template <typename T>
int score_gradient_splits(int row_tiles, const NceShape<T>& own, const NceShape<T>& other) {
  constexpr int64_t kSlots = 2 * 132;  // blocks that an H100 runs at a time
  constexpr double kOverhead = 0.6;    // the tile of rows and the sums' way out and back, in tiles
  return nce_splits(row_tiles * (own.width / kPanel<T>), other.panels, kSlots, kOverhead);
}

}  // namespace smore::cuda
