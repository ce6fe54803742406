// Rows of a CSR matrix for groups of lanes, long ones cut into pieces of about equal size.
//
// The edges are cut into chunks. A row longer than a chunk leaves to its own group only the edges up to the first
// border between chunks, its head; every chunk that begins inside such a row has a group of its own, for a piece of the
// row. Where a long row begins and ends is found on the device, so neither a plan nor the host is needed.
#pragma once

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/row_bounds.cuh"
#include "cuda/row_lengths.h"
#include "sparse/csr_matrix.h"

namespace smore::cuda {

template <typename T, typename I>
struct RowCuts {
  CsrMatrix<T, I> a;
  int64_t fixed;     // the length of every row, or -1
  int log_chunk;     // a chunk has 2^log_chunk edges
  int64_t n_chunks;  // 0: rows are not cut

  __device__ int64_t chunk() const { return int64_t{1} << log_chunk; }
  // The number of chunks that begin before the edge.
  __device__ int64_t chunks_up_to(int64_t edge) const { return (edge + chunk() - 1) >> log_chunk; }
};

template <typename T, typename I>
__device__ __forceinline__ Range edges_of(const RowCuts<T, I>& rows, int64_t row) {
  if (rows.fixed >= 0) return {row * rows.fixed, (row + 1) * rows.fixed};
  return row_bounds(rows.a.rowptr, row, rows.a.n_edges);
}

// The row that holds the edge; n_rows if there is none.
template <typename T, typename I>
__device__ int64_t row_of(const RowCuts<T, I>& rows, int64_t edge) {
  if (rows.fixed > 0) return edge / rows.fixed;
  int64_t low = 0, high = rows.a.n_rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(rows.a.rowptr[middle + 1]) <= edge) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// What a group works on: a row that is not long, the head of a long one, or a chunk's piece of one (`of_chunk`).
struct Share {
  int64_t row;  // n_rows: none
  Range edges;  // empty for a chunk that is no piece
  bool is_long;
  bool first_cut;  // the chunk is the first piece of its row
};

template <typename T, typename I>
__device__ __forceinline__ Share share_of(const RowCuts<T, I>& rows, bool of_chunk, int64_t number) {
  const int64_t first = number << rows.log_chunk;  // the chunk's first edge
  Share share{!of_chunk ? number : number < rows.n_chunks ? row_of(rows, first) : rows.a.n_rows, {0, 0}, false, false};
  if (share.row < rows.a.n_rows) share.edges = edges_of(rows, share.row);
  const Range all = share.edges;
  share.is_long = rows.n_chunks > 0 && all.end - all.begin > rows.chunk();
  if (of_chunk) {
    share.first_cut = share.is_long && all.begin > first - rows.chunk();
    share.edges = share.is_long ? Range{first, max(min(all.end, first + rows.chunk()), first)} : Range{0, 0};
  } else if (share.is_long) {
    share.edges.end = rows.chunks_up_to(all.begin) << rows.log_chunk;
  }
  return share;
}

// Longer chunks cost less traffic, shorter ones leave less to the last group at work.
inline int log_chunk_for(int64_t n_edges) { return n_edges < (int64_t{1} << 20) ? 6 : 7; }

inline int64_t chunks_for(int64_t n_edges, const RowLengths& lengths) {
  const int64_t chunk = int64_t{1} << log_chunk_for(n_edges);
  return lengths.longest <= chunk || n_edges <= chunk ? 0 : ceil_div(n_edges, chunk);
}

template <typename T, typename I>
RowCuts<T, I> cuts_of(const CsrMatrix<T, I>& a, const RowLengths& lengths) {
  return {a, lengths.fixed, log_chunk_for(a.n_edges), chunks_for(a.n_edges, lengths)};
}

}  // namespace smore::cuda
