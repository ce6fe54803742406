// Transforms of real rows on the chip, by their definition: two real products with tables. For all bins of widths below
// 64, and for the lowest bins of wider rows.
//
// With e_j = x_j + x_(d-j) and o_j = x_(d-j) - x_j for 0 < j < d/2, e_j = x_j and o_j = 0 for j = 0 and j = d/2, the
// spectrum of a row is re_k = sum_j e_j cos(2 pi j k / d) and im_k = sum_j o_j sin(2 pi j k / d), j and k in 0 .. d/2.
// Back it is the same: P_j = sum_k re_k cos and Q_j = sum_k im_k sin give the row, y_j = P_j - Q_j and
// y_(d-j) = P_j + Q_j, if bins other than 0 and d/2 come twice. So one product with the two symmetric tables serves
// both directions, at d^2 flops a row. Filters bring that factor of two along.
//
// A row of which few bins are kept goes through it in windows of 2 C - 1 numbers, C the columns of the tables: what
// holds for x_j and x_(d-j) around 0 holds around any centre, but for a turn of bin k by the angle of the centre. The
// first window lies around 0 and the others follow one another, so from one to the next each bin is turned by the same
// angle.
//
// A warp has a tile of rows of its own in shared memory, so warps never wait for each other; a row meets no other one.
// A lane has 4 rows (2 in float64) x 4 columns of the product. The lanes of a quad are 2 row groups x 2 column groups:
// neighbours (lane ^ 1) read the same rows, and those two apart (lane ^ 2) the same columns: with either, a read of 16
// bytes a lane takes two passes of shared memory instead of four.
#pragma once

#include <type_traits>

#include "cuda/complex.cuh"
#include "cuda/pack.cuh"
#include "spectral/cuda/spectral_kernel.h"
#include "spectral/cuda/spectral_tiles.cuh"

namespace smore::cuda {

// Rows of d < Width; or, in Windows, of any d >= Width, of which at most Width / 2 bins are kept. Width is 16, 32
// or 64.
template <typename T, int Width, bool Windows>
class RowDft {
 public:
  static constexpr int kColumns = Width / 2;      // bins, with zeros behind the last one
  static constexpr int kEach = 4;                 // columns of a lane
  static constexpr int kRowsEach = kFullPack<T>;  // ... and rows
  static constexpr int kBins = kRowsEach * kEach;
  static constexpr int kColumnGroups = kColumns / kEach;
  static constexpr int kRowGroups = kWarp / kColumnGroups;
  static constexpr int kRows = kRowsEach * kRowGroups;  // of a tile

 private:
  static_assert(Width == 16 || Width == 32 || Width == 64);
  // Distance of rows, 8 or 24 modulo 32: in float, a quarter of a warp (4 rows x 2 packs) writes to 32 different banks,
  // and half a warp reads 4 rows from different ones (for Width = 16 it is 8 rows, in twice the passes).
  static constexpr int kRowStep = kColumns == 8 ? 8 : kColumns + 8;
  static constexpr int kPlane = kRows * kRowStep;  // e, then o
  static constexpr int kTablePlane = kColumns * kColumns;
  static constexpr int kPack = kFullPack<T>;
  // As many lanes as columns read a row, one x_j and x_(d-j).
  static constexpr int kStepRows = kWarp / kColumns, kSteps = kRows / kStepRows;

 public:
  static constexpr int kWindow = 2 * kColumns - 1;  // numbers of a row
  // Numbers of the block's tables: cosines, sines, and the turns of the bins from one window to the next.
  static constexpr int kTable = 2 * kTablePlane + (Windows ? 2 * kColumns : 0);
  static constexpr int kFilter = 2 * kColumns;             // ... of a filter
  static constexpr int kTile = 2 * kPlane;                 // ... of a warp's tile
  static constexpr int kKept = 2 * kBins * kWarp;          // ... of the spectra of a tile, kept for later
  static constexpr int kSaved = Windows ? kKept : 0;       // ... of a spectrum between windows
  static constexpr int kSums = 2 * kEach * kWarp;          // ... of sums over the rows of a lane
  static constexpr int kKeptPack = kFullPack<Complex<T>>;  // complex numbers that are kept in one

  // Quads side by side have the same columns, so that a quarter of a warp is 4 rows x 2 packs.
  static __device__ __forceinline__ int lane_of(int row_group, int column_group) {
    const int quad = row_group / 2 % 2 + column_group / 2 * 2 + row_group / 4 * kColumnGroups;
    return quad * 4 + row_group % 2 * 2 + column_group % 2;
  }

  // `table` is the block's, `tile` this warp's, and so is `saved`, kSaved numbers.
  __device__ RowDft(const T* table, T* tile, T* saved, int d, int kept)
      : d_(d),
        kept_(kept),
        lane_(static_cast<int>(threadIdx.x % kWarp)),
        j_(lane_ % kColumns),
        tile_(tile),
        mine_(tile + row_group() * kRowStep),
        saved_(saved),
        column_(column_group() * kEach),
        table_(table + column_) {}

  // Bins of rows in memory. They start at `from`, `valid` of them exist; others are zero. Bin r * kEach + k of a lane
  // is that of its row r and column k.
  template <int Read>
  __device__ __forceinline__ void transform(const T* from, int valid, Complex<T> (&bins)[kBins]) const {
#pragma unroll
    for (int i = 0; i < kBins; ++i) bins[i] = {0, 0};
    if constexpr (Windows) {
#pragma unroll 1
      for (int centre = (d_ - 1) / kWindow * kWindow; centre >= 0; centre -= kWindow) {
        turn<false>(bins);
        read(from, valid, centre);
        __syncwarp();
        add_products<Read>(kColumns, bins);
        __syncwarp();
      }
    } else {
      read(from, valid, 0);
      __syncwarp();
      add_products<Read>(d_ / 2 + 1, bins);
    }
  }

  // Bins to the tile, in place of e and o.
  __device__ __forceinline__ void put(const Complex<T> (&bins)[kBins]) const {
    T* const to = mine_ + column_;
#pragma unroll
    for (int i = 0; i < kBins; i += kPack) {
      Pack<T, kPack> re, im;
#pragma unroll
      for (int v = 0; v < kPack; ++v) re.at[v] = bins[i + v].re, im.at[v] = bins[i + v].im;
      T* at = to + i / kEach * kRowGroups * kRowStep + i % kEach;
      store_pack(at, re), store_pack(at + kPlane, im);
    }
  }

  // From bins to rows in memory: the tile takes the bins, is multiplied, and takes P and Q.
  template <int Read>
  __device__ __forceinline__ void invert(Complex<T> (&bins)[kBins], T* to, int valid) const {
    const int end = Windows ? d_ : 1;
#pragma unroll 1
    for (int centre = 0; centre < end; centre += kWindow) {
      if constexpr (Windows) {
        if (centre > 0) {
          recall(saved_, bins);
          turn<true>(bins);
        }
        keep(saved_, bins);
      }
      __syncwarp();
      put(bins);
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kBins; ++i) bins[i] = {0, 0};
      add_products<Read>(kept_, bins);
      __syncwarp();
      put(bins);
      __syncwarp();
      write(to, valid, centre);
    }
  }

  // Of a filter, a pack from this lane's column k.
  __device__ __forceinline__ Pack<Complex<T>, kKeptPack> filter(const Complex<T>* filter, int k) const {
    return load_pack<kKeptPack>(filter + column_ + k);
  }

  // Numbers of this lane in shared memory, kKept or kSums for all lanes, read and written in packs.
  template <int N>
  __device__ __forceinline__ void keep(T* to, const Complex<T> (&numbers)[N]) const {
#pragma unroll
    for (int i = 0; i < N; i += kKeptPack) {
      Pack<Complex<T>, kKeptPack> pack;
#pragma unroll
      for (int v = 0; v < kKeptPack; ++v) pack.at[v] = numbers[i + v];
      store_pack(kept_at(to, i), pack);
    }
  }
  template <int N>
  __device__ __forceinline__ void recall(T* from, Complex<T> (&numbers)[N]) const {
#pragma unroll
    for (int i = 0; i < N; i += kKeptPack) {
      const auto pack = kept(from, i);
#pragma unroll
      for (int v = 0; v < kKeptPack; ++v) numbers[i + v] = pack.at[v];
    }
  }
  // The pack from number i.
  __device__ __forceinline__ Pack<Complex<T>, kKeptPack> kept(T* from, int i) const {
    return load_pack<kKeptPack>(kept_at(from, i));
  }
  // Where this lane has number i, and any lane.
  __device__ __forceinline__ Complex<T>* kept_at(T* kept, int i) const { return kept_at(kept, i, lane_); }
  static __device__ __forceinline__ Complex<T>* kept_at(T* kept, int i, int lane) {
    return reinterpret_cast<Complex<T>*>(kept) + (i / kKeptPack * kWarp + lane) * kKeptPack + i % kKeptPack;
  }

 private:
  // Where the lane's x_j and x_(d-j) lie in a row, around a centre, and whether they do. What lies behind the last
  // window is the back of the first.
  struct Ends {
    int front, back;
    bool has_front, has_back;
  };
  __device__ __forceinline__ Ends ends(int centre) const {
    if constexpr (Windows) {
      const int back = centre - j_, limit = d_ - kColumns + 1;
      const bool first = centre == 0;
      return {centre + j_, first ? d_ - j_ : back, centre + j_ < limit, j_ > 0 && (first || back < limit)};
    } else {
      return {j_, d_ - j_, 2 * j_ <= d_, j_ > 0 && 2 * j_ < d_};
    }
  }

  // e and o of rows in memory, to the tile.
  __device__ __forceinline__ void read(const T* from, int valid, int centre) const {
    const Ends lane = ends(centre);
    const T *at = from + first_row() * d_ + lane.front, *mirror = at + (lane.back - lane.front);
    T front[kSteps], back[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const bool there = first_row() + i * kStepRows < valid;
      front[i] = there && lane.has_front ? *at : T(0);
      back[i] = there && lane.has_back ? *mirror : T(0);
      at += kStepRows * d_, mirror += kStepRows * d_;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      T* const to = place(i);
      to[0] = front[i] + back[i];
      to[kPlane] = lane.has_back ? back[i] - front[i] : T(0);
    }
  }

  // The rows whose P and Q the tile has, to memory. A lane reads what it itself writes in read(): no barrier between.
  __device__ __forceinline__ void write(T* to, int valid, int centre) const {
    const Ends lane = ends(centre);
    if (!Windows && !lane.has_front) return;
    T *at = to + first_row() * d_ + lane.front, *mirror = at + (lane.back - lane.front);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const bool there = first_row() + i * kStepRows < valid;
      const T p = place(i)[0], q = place(i)[kPlane];
      if (there && (!Windows || lane.has_front)) *at = p - q;
      if (there && lane.has_back) *mirror = p + q;
      at += kStepRows * d_, mirror += kStepRows * d_;
    }
  }

  // Adds the products of the tile with the tables, whose first `rows` rows count.
  template <int Read>
  __device__ __forceinline__ void add_products(int rows, Complex<T> (&bins)[kBins]) const {
    const T *from = mine_, *table = table_;
#pragma unroll 1
    for (int j = 0; j < rows; j += Read) {
      Pack<T, Read> e[kRowsEach], o[kRowsEach];
#pragma unroll
      for (int r = 0; r < kRowsEach; ++r) {
        e[r] = load_pack<Read>(from + r * kRowGroups * kRowStep);
        o[r] = load_pack<Read>(from + r * kRowGroups * kRowStep + kPlane);
      }
#pragma unroll
      for (int v = 0; v < Read; ++v) {
        T cosine[kEach], sine[kEach];
        load(table + v * kColumns, cosine);
        load(table + v * kColumns + kTablePlane, sine);
#pragma unroll
        for (int i = 0; i < kBins; ++i) {
          bins[i].re += e[i / kEach].at[v] * cosine[i % kEach];
          bins[i].im += o[i / kEach].at[v] * sine[i % kEach];
        }
      }
      from += Read, table += Read * kColumns;
    }
  }

  // Turns bins from one window to the one before, or back.
  template <bool Back>
  __device__ __forceinline__ void turn(Complex<T> (&bins)[kBins]) const {
    const T* const turns = table_ - column_ + 2 * kTablePlane;
#pragma unroll
    for (int k = 0; k < kEach; k += kKeptPack) {
      const auto pack = load_pack<kKeptPack>(reinterpret_cast<const Complex<T>*>(turns) + column_ + k);
#pragma unroll
      for (int i = k; i < kBins; i += kEach) {
#pragma unroll
        for (int v = 0; v < kKeptPack; ++v) bins[i + v] = twiddled<Back>(bins[i + v], pack.at[v]);
      }
    }
  }

  static __device__ __forceinline__ void load(const T* from, T (&to)[kEach]) {
#pragma unroll
    for (int i = 0; i < kEach; i += kPack) {
      const Pack<T, kPack> pack = load_pack<kPack>(from + i);
#pragma unroll
      for (int v = 0; v < kPack; ++v) to[i + v] = pack.at[v];
    }
  }
  // The inverse of lane_of().
  __device__ __forceinline__ int row_group() const {
    return lane_ / 2 % 2 + lane_ / 4 % 2 * 2 + lane_ / 4 / kColumnGroups * 4;
  }
  __device__ __forceinline__ int column_group() const { return lane_ % 2 + lane_ / 8 % (kColumnGroups / 2) * 2; }
  // In step i a lane reads or writes row first_row() + i * kStepRows, from or to this place of the tile. Two rows that
  // meet in a step are two apart there, in different banks.
  __device__ __forceinline__ int first_row() const { return lane_ / kColumns; }
  __device__ __forceinline__ T* place(int i) const {
    T* const first = tile_ + first_row() * (kStepRows == 2 ? 2 : 1) * kRowStep + j_;
    return first + (kStepRows == 2 ? i / 2 * 4 + i % 2 : i * kStepRows) * kRowStep;
  }

  const int d_, kept_, lane_, j_;
  T *const tile_, *const mine_, *const saved_;
  const int column_;
  const T* const table_;
};

// Shared memory of a block: tables, filters, and what each warp has.
template <typename T, int Width, bool Windows>
struct DftShared {
  using Dft = RowDft<T, Width, Windows>;
  static constexpr int numbers(int filters, int warps, int of_warp) {
    return Dft::kTable + filters * Dft::kFilter + warps * of_warp;
  }

  T* table;
  Complex<T>* filters;
  T* warps;

  __device__ DftShared(T* shared, int count)
      : table(shared),
        filters(reinterpret_cast<Complex<T>*>(table + Dft::kTable)),
        warps(table + Dft::kTable + count * Dft::kFilter) {}

  // The filters that there are, times their scale, and twice where a bin stands for its mirror too; the imaginary parts
  // of bins 0 and d/2 are left out, and bins that are not kept. Ends with a barrier.
  __device__ void fill(int d, int kept, const T* const* weight, int modalities, int count,
                       const SpectralScales& scales) const {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    Complex<T>* const roots = reinterpret_cast<Complex<T>*>(warps);  // until the warps have other use for it
    if constexpr (!Windows) {
      for (int i = thread; i < d; i += threads) roots[i] = root<T>(i, d);
      __syncthreads();
    }
    for (int i = thread; i < Dft::kColumns * Dft::kColumns; i += threads) {
      const int j = i / Dft::kColumns, k = i % Dft::kColumns;
      Complex<T> wave{0, 0};
      if constexpr (Windows) {
        wave = root<T>(j * k % d, d);
      } else if (2 * j <= d && 2 * k <= d) {
        wave = roots[j * k % d];
      }
      table[i] = wave.re, table[Dft::kColumns * Dft::kColumns + i] = -wave.im;
    }
    if constexpr (Windows) {
      auto* const turns = reinterpret_cast<Complex<T>*>(table + 2 * Dft::kColumns * Dft::kColumns);
      for (int k = thread; k < Dft::kColumns; k += threads) turns[k] = root<T>(Dft::kWindow * k % d, d);
    }
    for (int i = thread; i < count * Dft::kColumns; i += threads) {
      const int f = i / Dft::kColumns, k = i % Dft::kColumns;
      if (weight[f] == nullptr) continue;
      const bool alone = k == 0 || 2 * k == d, there = k < kept;
      const double scale = (f < modalities ? scales.filter : scales.fusion) * (alone ? 1 : 2);
      filters[i] = {there ? static_cast<T>(weight[f][2 * k] * scale) : T(0),
                    there && !alone ? static_cast<T>(weight[f][2 * k + 1] * scale) : T(0)};
    }
    __syncthreads();
  }

  __device__ __forceinline__ const Complex<T>* filter(int f) const { return filters + f * Dft::kColumns; }
};

// Runs f(std::integral_constant<int, Width>(), std::bool_constant<Windows>()) for the narrowest tables that serve.
template <typename F>
void for_dft_width(int64_t d, int64_t kept, int64_t modalities, const F& f) {
  if (spectral_path(d, modalities, kept) != SpectralPath::dft) {
    throw std::invalid_argument("smore_ext: no spectral kernel by definition for width " + std::to_string(d) + ", " +
                                std::to_string(kept) + " bins and " + std::to_string(modalities) + " modalities");
  }
  const auto narrowest = [&](int columns, auto windows) {
    if (columns == 8) return f(std::integral_constant<int, 16>(), windows);
    if (columns == 16) return f(std::integral_constant<int, 32>(), windows);
    return f(std::integral_constant<int, 64>(), windows);
  };
  if (dft_windows(d, kept)) return narrowest(dft_columns(kept), std::true_type());
  narrowest(dft_columns(d / 2 + 1), std::false_type());
}

}  // namespace smore::cuda
