// How rows are shared out among the warps of a grid, for every kernel on the chip.
#pragma once

#include "cuda/launch.cuh"

namespace smore::cuda {

// The rows [n] in tiles of as many as a warp has at work. Their number fits 32 bits: more rows fit no memory.
template <int Rows>
class WarpTiles {
 public:
  __device__ explicit WarpTiles(int64_t n) : n_(n), count_(static_cast<unsigned>((n + Rows - 1) / Rows)) {}
  __device__ __forceinline__ unsigned count() const { return count_; }
  __device__ __forceinline__ int64_t first(unsigned tile) const { return int64_t{tile} * Rows; }
  // Rows that exist, of a tile that may lie beyond them all.
  __device__ __forceinline__ int valid(unsigned tile) const {
    const int64_t left = n_ - first(tile);
    return left < Rows ? left < 0 ? 0 : static_cast<int>(left) : Rows;
  }

 private:
  const int64_t n_;
  const unsigned count_;
};

// Blocks of a grid in which all of `tiles` are shared out evenly among at most `most` blocks.
inline unsigned even_blocks(int64_t tiles, int64_t most) {
  return tiles == 0 ? 0 : static_cast<unsigned>(ceil_div(tiles, ceil_div(tiles, most)));
}

}  // namespace smore::cuda
