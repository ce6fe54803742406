// InfoNCE backward. With P_ij = exp(s_ij - log_sum_i) - [i = j], the gradient in u_i is sum_j P_ij v_j, and in v_j it
// is sum_i P_ij u_i. One launch does both sides: a block owns a tile of rows of one side, goes through a range of the
// other's, computes the scores again and adds up in registers. So scores are computed twice; computing them once would
// mean a partial sum for one of the sides from every block, memory that grows with batch x batch.
#include "losses/cuda/info_nce_kernel.h"

#include "losses/cuda/info_nce_tile.cuh"
#include "losses/cuda/info_nce_unit.cuh"

namespace smore::cuda {
namespace {

constexpr int64_t kSlots = 2 * 132;  // blocks that an H100 runs at a time
constexpr double kOverhead = 0.6;    // the tile of rows and the sums' way out and back, in tiles
constexpr int kFinishThreads = 256;

template <typename T>
int backward_splits(const NceShape<T>& shape) {
  return nce_splits(2 * shape.row_tiles * (shape.width / kPanel<T>), shape.panels, kSlots, kOverhead);
}

// Unit rows of one side.
template <typename T>
struct Unit {
  const T* panels;
  const T* rows;
};

template <typename T>
struct GradientTile {
  static constexpr int P = kPanel<T>, R = kTileRows<T>;
  static constexpr int kStep = R + 4;  // the packs of P that a quarter of a warp writes fall into different banks
  static constexpr int kElements = P * R + P * P + P * P + P * kStep + R + P;
};

// partial[side][split][rows][width]. Block z is side + 2 * the piece of the width that it sums up. kOnePiece: width =
// kPanel.
template <typename T, bool kOnePiece>
__global__ void __launch_bounds__(kNceThreads, 3)
    nce_gradient_kernel(Unit<T> x, Unit<T> y, NceShape<T> shape, const T* __restrict__ log_sum, T inverse,
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

  const bool of_x = blockIdx.z % 2 == 0;  // log_sum belongs to rows of x
  const T* own_panels = of_x ? x.panels : y.panels;
  const T* other_panels = of_x ? y.panels : x.panels;
  const T* plain = of_x ? y.rows : x.rows;
  const int width = kOnePiece ? P : shape.width, piece = kOnePiece ? 0 : static_cast<int>(blockIdx.z / 2) * P;
  const int n = static_cast<int>(shape.n), first_own = static_cast<int>(blockIdx.x) * R;
  const int t = static_cast<int>(threadIdx.x);
  for (int r = t; r < R; r += kNceThreads) own_shift[r] = of_x && first_own + r < n ? log_sum[first_own + r] : T(0);

  if (kOnePiece) copy_row_tile<kAtOnce>(own_panels, width, blockIdx.x, 0, own);

  const NceThread thread;
  T gradient[E][E] = {};
  const int begin = range_begin(shape.panels, blockIdx.y), end = range_begin(shape.panels, blockIdx.y + 1);
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
          other_shift[t] = row >= n ? -kLowest<T> : of_x ? T(0) : log_sum[row];
        }
      }
      __syncthreads();
      multiply_tiles<kSteps>(thread, own, R, other, s);
    }
    const int ahead = panel * P - first_own;
    const bool diagonal = ahead < R && ahead > -P;  // it passes through the tile
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
  T* to = partial + (static_cast<int64_t>(of_x ? 0 : gridDim.y) + blockIdx.y) * shape.rows * width + piece;
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

// What a row's gradient needs beyond the sums.
template <typename T>
struct FinishSide {
  const T* unit;  // plain rows
  const T* norm;
  T* sums;  // [split][rows][width]; the first is overwritten
  T* grad;  // [n, d]
};

// One warp a row: the splits' sums in order, then back through u = x / max(|x|, 1e-12).
template <typename T>
__global__ void __launch_bounds__(kFinishThreads, 4)
    nce_finish_kernel(FinishSide<T> x, FinishSide<T> y, NceShape<T> shape, int splits, const T* __restrict__ grad,
                      double temperature) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x) / kWarp;
  if (index >= 2 * shape.n) return;
  const bool of_x = index < shape.n;
  const int64_t i = of_x ? index : index - shape.n, d = shape.d, stride = shape.rows * shape.width;
  const T* u = (of_x ? x.unit : y.unit) + i * shape.width;
  T* sums = (of_x ? x.sums : y.sums) + i * shape.width;
  T* to = (of_x ? x.grad : y.grad) + i * d;
  double dot = 0;
  for (int64_t k = lane; k < d; k += kWarp) {
    T sum = 0;
#pragma unroll 4
    for (int s = 0; s < splits; ++s) sum += sums[s * stride + k];
    sums[k] = sum;
    dot += static_cast<double>(sum) * static_cast<double>(u[k]);
  }
  const T norm = of_x ? x.norm[i] : y.norm[i], least = static_cast<T>(1e-12);
  const bool clamped = !(norm > least);
  const T along = clamped ? T(0) : static_cast<T>(warp_sum(dot));
  const T scale = static_cast<T>(static_cast<double>(*grad) / (static_cast<double>(shape.n) * temperature));
  const T factor = scale / (clamped ? least : norm);
  for (int64_t k = lane; k < d; k += kWarp) to[k] = factor * (sums[k] - along * u[k]);
}

}  // namespace

template <typename T>
int64_t nce_backward_scratch(int64_t n, int64_t d) {
  const NceShape<T> shape(n, d);
  return (4 + 2 * backward_splits(shape)) * shape.elements() + 2 * shape.rows;
}

template <typename T>
void nce_backward(const NceInput<T>& input, const T* grad, const T* log_sum, T* grad_x, T* grad_y, T* scratch,
                  cudaStream_t stream) {
  const NceShape<T> shape(input.n, input.d);
  const int splits = backward_splits(shape);
  const int64_t size = shape.elements();
  T *x_panels = scratch, *y_panels = x_panels + size, *x_rows = y_panels + size, *y_rows = x_rows + size;
  T *x_sums = y_rows + size, *y_sums = x_sums + splits * size, *x_norm = y_sums + splits * size;
  T* y_norm = x_norm + shape.rows;
  nce_unit_rows<T>({input.x, x_panels, x_rows, x_norm}, {input.y, y_panels, y_rows, y_norm}, shape, nullptr, stream);
  const dim3 grid(static_cast<unsigned>(shape.row_tiles), static_cast<unsigned>(splits),
                  static_cast<unsigned>(2 * shape.width / kPanel<T>));
  const Launch at{grid, kNceThreads, stream, static_cast<size_t>(GradientTile<T>::kElements) * sizeof(T)};
  const Unit<T> x{x_panels, x_rows}, y{y_panels, y_rows};
  const T inverse = static_cast<T>(1.0 / input.temperature);
  if (shape.width == kPanel<T>) {
    SMORE_LAUNCH((nce_gradient_kernel<T, true>), at, x, y, shape, log_sum, inverse, x_sums);
  } else {
    SMORE_LAUNCH((nce_gradient_kernel<T, false>), at, x, y, shape, log_sum, inverse, x_sums);
  }
  SMORE_LAUNCH((nce_finish_kernel<T>),
               (Launch{blocks_for(2 * input.n, kFinishThreads / kWarp), kFinishThreads, stream}),
               (FinishSide<T>{x_rows, x_norm, x_sums, grad_x}), (FinishSide<T>{y_rows, y_norm, y_sums, grad_y}), shape,
               splits, grad, input.temperature);
}

#define SMORE_INSTANTIATE(T)                                  \
  template int64_t nce_backward_scratch<T>(int64_t, int64_t); \
  template void nce_backward<T>(const NceInput<T>&, const T*, const T*, T*, T*, T*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
