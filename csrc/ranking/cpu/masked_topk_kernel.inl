#include "cpu/gemm_tile.inl"

namespace smore::SMORE_LEVEL {

template <typename T, typename I>
void topk_users_at(const TopkJob<T, I>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  static_assert(C <= 64 && kTopkUsers % kTileRows == 0);
  typedef TopkList<T, I> List;
  const int64_t d = job.d, k = job.k;
  // Panels that stay in the second-level cache while all users of the block meet them.
  const int64_t group =
      std::max<int64_t>(1, (256 * 1024) / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(d * C, 1));
  const int64_t panels = (job.n_items + C - 1) / C;
  const AlignedBuffer<typename List::Key> keys(std::min(kTopkUsers, job.n_users) * kTopkRoom * k);
  const AlignedBuffer<T> packed(kTopkUsers * d);
  // Panels that are written nowhere else are packed here, a group at a time, and met while they are in the cache.
  const AlignedBuffer<T> own(job.panels == nullptr ? std::min(group, panels) * C * d : 0);
  List lists[kTopkUsers];
  T bars[kTopkUsers];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kTopkUsers, rows = std::min(kTopkUsers, job.n_users - first);
    // Users as [group of kTileRows][d][kTileRows]; missing ones are zero rows below an infinite bar.
    for (int64_t u = 0; u < kTopkUsers; ++u) {
      T* to = packed.get() + u / kTileRows * kTileRows * d + u % kTileRows;
      for (int64_t j = 0; j < d; ++j) to[j * kTileRows] = u < rows ? job.users[(first + u) * d + j] : T(0);
      bars[u] = u < rows ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity();
      if (u >= rows) continue;
      const bool masked = job.seen_rowptr != nullptr;
      lists[u] = {keys.get() + u * kTopkRoom * k, 0, masked ? job.seen_col + job.seen_rowptr[first + u] : nullptr,
                  masked ? job.seen_col + job.seen_rowptr[first + u + 1] : nullptr};
    }
    for (int64_t p0 = 0; p0 < panels; p0 += group) {
      const int64_t p1 = std::min(panels, p0 + group);
      if (job.panels == nullptr) {
        pack_panels(job.items + p0 * C * d, job.n_items - p0 * C, d, own.get(), 0, p1 - p0);
      }
      const T* held = job.panels == nullptr ? own.get() : job.panels + p0 * C * d;
      for (int64_t u0 = 0; u0 < rows; u0 += kTileRows) {
        for (int64_t p = p0; p < p1; ++p) {
          Vec<T> acc[kTileRows][kTileVectors];
          clear<T>(acc);
          gemm_tile<T>(packed.get() + u0 * d, 1, kTileRows, held + (p - p0) * C * d, C, d, acc);
          for (int r = 0; r < kTileRows; ++r) {
            const Vec<T> bar = broadcast(bars[u0 + r]);
            uint64_t above = 0;
            for (int v = 0; v < kTileVectors; ++v) {
              above |= static_cast<uint64_t>(greater_bits(acc[r][v], bar)) << (v * W);
            }
            if (above == 0) continue;
            List& list = lists[u0 + r];
            above &= ~list.seen_bits(p * C, C);
            if (p == panels - 1) above &= ~uint64_t{0} >> (64 - (job.n_items - p * C));
            T scores[C];
            for (int v = 0; v < kTileVectors; ++v) store(scores + v * W, acc[r][v]);
            for (; above != 0; above &= above - 1) {
              const int c = __builtin_ctzll(above);
              if (scores[c] > bars[u0 + r]) list.push(scores[c], p * C + c, k, bars[u0 + r]);
            }
          }
        }
      }
    }
    for (int64_t u = 0; u < rows; ++u) {
      lists[u].finish(k, job.score + (first + u) * k, job.index + (first + u) * k);
    }
  }
}

template <typename T>
int64_t topk_columns_at() {
  return kTileColumns<T>;
}

}  // namespace smore::SMORE_LEVEL
