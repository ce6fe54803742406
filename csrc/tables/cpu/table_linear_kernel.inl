// Both products stream the table through the cache once, in stretches of a row that are long enough for the processor
// to fetch ahead, and copy each piece into a compact block first: the table's rows lie a power of two apart and would
// evict each other. Sums run over blocks of fixed depth, in order, so the bits do not depend on how the work is shared
// out.
#include "cpu/gemm_tile.inl"

namespace smore::SMORE_LEVEL {

inline constexpr int64_t kDepth = 256;      // columns of the table in a block of the forward product
inline constexpr int64_t kGradRows = 128;   // rows of the table in a block of the weight gradient
inline constexpr int64_t kGradPanels = 32;  // panels whose block of table and gradient stay in the second-level cache

inline int64_t table_round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline int64_t table_depth_blocks_at(int64_t width) { return (width + kDepth - 1) / kDepth; }

template <typename T>
int64_t table_packed_elements_at(int64_t width, int64_t d) {
  return width * table_round_up(d, kTileColumns<T>);
}

// Block b, panel p of kTileColumns outputs, column k, output c: weight[p * C + c][b * kDepth + k].
template <typename T>
void table_pack_at(const T* weight, int64_t width, int64_t d, T* panels, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  const int64_t outputs = table_round_up(d, C);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t left = b * kDepth, depth = std::min(kDepth, width - left);
    T* to = panels + left * outputs;
    for (int64_t p = 0; p < outputs; p += C) {
      for (int64_t c = 0; c < C; ++c) {
        const T* from = weight + (p + c) * width + left;
        for (int64_t k = 0; k < depth; ++k) to[k * C + c] = p + c < d ? from[k] : T(0);
      }
      to += depth * C;
    }
  }
}

// Asks for a stretch of memory that is used soon, while there is arithmetic to do.
template <typename T>
SMORE_INLINE void fetch_ahead(const T* from, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

template <typename T>
void table_forward_at(const TableForward<T>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>, W = kWidth<T>;
  static_assert(kTableRows % kTileRows == 0);
  const int64_t width = job.width, d = job.d, outputs = table_round_up(d, C);
  const AlignedBuffer<T> block(kTableRows * kDepth), sums(kTableRows * outputs);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t first = b * kTableRows, count = std::min(kTableRows, job.n - first);
    std::fill(sums.get(), sums.get() + kTableRows * outputs, T(0));
    std::fill(block.get(), block.get() + kTableRows * kDepth, T(0));
    for (int64_t left = 0; left < width; left += kDepth) {
      const int64_t depth = std::min(kDepth, width - left);
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(block.get() + r * kDepth, job.table + (first + r) * width + left,
                    static_cast<size_t>(depth) * sizeof(T));
      }
      for (int64_t p = 0; p < outputs; p += C) {
        const T* panel = job.panels + left * outputs + p * depth;
        for (int64_t r = 0; r < count; r += kTileRows) {
          if (p == 0) {
            const bool wraps = left + kDepth >= width;  // then the next block starts the next rows
            const int64_t next = wraps ? 0 : left + kDepth, row = first + r + (wraps ? kTableRows : 0);
            for (int64_t i = row; i < std::min(job.n, row + kTileRows); ++i) {
              fetch_ahead(job.table + i * width + next, std::min(kDepth, width - next));
            }
          }
          Vec<T> part[kTileRows][kTileVectors] = {};
          gemm_chunk<T>(block.get() + r * kDepth, kDepth, 1, panel, C, depth, part);
          for (int i = 0; i < kTileRows; ++i) {
            for (int v = 0; v < kTileVectors; ++v) {
              T* at = sums.get() + (r + i) * outputs + p + v * W;
              store(at, load(at) + part[i][v]);
            }
          }
        }
      }
    }
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < d; ++c) job.out[(first + r) * d + c] = sums.get()[r * outputs + c] + job.bias[c];
    }
  }
}

template <typename T>
int64_t table_panels_at(int64_t width) {
  return (width + kTileColumns<T> - 1) / kTileColumns<T>;
}

// Rows [row, row + depth) of the table, columns of panels [first, last), as panels [p][row][column].
template <typename T>
void table_copy_block(const TableWeightGradient<T>& job, int64_t row, int64_t depth, int64_t first, int64_t last,
                      T* to) {
  constexpr int64_t C = kTileColumns<T>, W = kWidth<T>;
  for (int64_t k = 0; k < depth; ++k) {
    const T* from = job.table + (row + k) * job.width;
    for (int64_t p = first; p < last; ++p) {
      T* at = to + ((p - first) * kGradRows + k) * C;
      const int64_t columns = std::min(C, job.width - p * C);
      if (columns == C) {
        for (int v = 0; v < kTileVectors; ++v) store(at + v * W, load(from + p * C + v * W));
      } else {
        for (int64_t c = 0; c < C; ++c) at[c] = c < columns ? from[p * C + c] : T(0);
      }
    }
  }
}

template <typename T>
void table_weight_gradient_at(const TableWeightGradient<T>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>, W = kWidth<T>;
  const int64_t d = job.d, outputs = table_round_up(d, kTileRows);
  const AlignedBuffer<T> grad(kGradRows * outputs), block(kGradRows * kGradPanels * C), sums(outputs * kGradPanels * C);
  for (int64_t first = begin; first < end; first += kGradPanels) {
    const int64_t last = std::min(end, first + kGradPanels);
    std::fill(sums.get(), sums.get() + outputs * kGradPanels * C, T(0));
    for (int64_t row = 0; row < job.n; row += kGradRows) {
      const int64_t depth = std::min(kGradRows, job.n - row);
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t c = 0; c < outputs; ++c) {
          grad.get()[k * outputs + c] = c < d ? job.grad[(row + k) * d + c] : T(0);
        }
      }
      table_copy_block<T>(job, row, depth, first, last, block.get());
      const int64_t ahead =
          (depth + last - first - 1) / (last - first);  // rows of the next block, shared out over panels
      for (int64_t p = 0; p < last - first; ++p) {
        for (int64_t k = row + kGradRows + p * ahead; k < std::min(job.n, row + kGradRows + (p + 1) * ahead); ++k) {
          fetch_ahead(job.table + k * job.width + first * C, std::min(job.width, last * C) - first * C);
        }
        for (int64_t j = 0; j < outputs; j += kTileRows) {
          Vec<T> part[kTileRows][kTileVectors] = {};
          gemm_chunk<T>(grad.get() + j, 1, outputs, block.get() + p * kGradRows * C, C, depth, part);
          for (int i = 0; i < kTileRows; ++i) {
            for (int v = 0; v < kTileVectors; ++v) {
              T* at = sums.get() + ((j + i) * kGradPanels + p) * C + v * W;
              store(at, load(at) + part[i][v]);
            }
          }
        }
      }
    }
    const int64_t left = first * C, columns = std::min(job.width, last * C) - left;
    for (int64_t j = 0; j < d; ++j) {
      std::memcpy(job.grad_weight + j * job.width + left, sums.get() + j * kGradPanels * C,
                  static_cast<size_t>(columns) * sizeof(T));
    }
  }
}

}  // namespace smore::SMORE_LEVEL
