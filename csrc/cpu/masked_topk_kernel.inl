#include "cpu/gemm_tile.inl"

namespace smore::SMORE_LEVEL {

// The best k of a stream of (score, index) pairs whose indices ascend. Twice k places: when they are full,
// the better half stays and its worst score becomes the bar that later scores must exceed (an equal one has a
// larger index).
template <typename T>
struct TopkList {
  struct Entry {
    T score;
    int64_t index;
  };
  static bool before(const Entry& a, const Entry& b) {
    return a.score > b.score || (a.score == b.score && a.index < b.index);
  }

  Entry* entries;
  int64_t k, count;
  T bar;

  void reset() {
    count = 0;
    bar = -std::numeric_limits<T>::infinity();
  }
  void push(T score, int64_t index) {
    entries[count++] = {score, index};
    if (count == 2 * k) shrink();
  }
  void shrink() {
    std::nth_element(entries, entries + k - 1, entries + count, before);
    count = k;
    bar = entries[k - 1].score;
  }
  void finish() {
    const int64_t kept = std::min(count, k);
    std::partial_sort(entries, entries + kept, entries + count, before);
    count = kept;
  }
};

template <typename T, typename I>
void topk_users_at(const TopkJob<T, I>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  const int64_t d = job.d, k = job.k;
  // Panels that stay in the second-level cache while all users of the block meet them.
  const int64_t group =
      std::max<int64_t>(1, (256 * 1024) / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(d * C, 1));
  const int64_t panels = (job.n_items + C - 1) / C;
  const AlignedBuffer<typename TopkList<T>::Entry> entries(std::min(kTopkUsers, job.n_users) * 2 * k);
  const AlignedBuffer<T> packed(kTopkUsers * d);
  TopkList<T> lists[kTopkUsers];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kTopkUsers, rows = std::min(kTopkUsers, job.n_users - first);
    // Users as [group of kTileRows][d][kTileRows]; missing ones are zero rows whose scores are not looked at.
    for (int64_t u = 0; u < kTopkUsers; ++u) {
      T* to = packed.get() + u / kTileRows * kTileRows * d + u % kTileRows;
      for (int64_t j = 0; j < d; ++j) to[j * kTileRows] = u < rows ? job.users[(first + u) * d + j] : T(0);
      if (u >= rows) continue;
      lists[u] = {entries.get() + u * 2 * k, k, 0, T(0)};
      lists[u].reset();
    }
    for (int64_t p0 = 0; p0 < panels; p0 += group) {
      const int64_t p1 = std::min(panels, p0 + group);
      for (int64_t u0 = 0; u0 < rows; u0 += kTileRows) {
        for (int64_t p = p0; p < p1; ++p) {
          Vec<T> acc[kTileRows][kTileVectors];
          clear<T>(acc);
          gemm_tile<T>(packed.get() + u0 * d, 1, kTileRows, job.panels + p * C * d, C, d, acc);
          for (int r = 0; r < kTileRows && u0 + r < rows; ++r) {
            TopkList<T>& list = lists[u0 + r];
            for (int v = 0; v < kTileVectors; ++v) {
              uint32_t above = greater_bits(acc[r][v], broadcast(list.bar));
              if (above == 0) continue;
              T lanes[W];
              store(lanes, acc[r][v]);
              for (; above != 0; above &= above - 1) {
                const int lane = __builtin_ctz(above);
                const int64_t item = p * C + v * W + lane;
                if (item >= job.n_items || !(lanes[lane] > list.bar)) continue;
                if (job.seen_rowptr != nullptr) {
                  const int64_t user = first + u0 + r;
                  if (contains(job.seen_col + job.seen_rowptr[user], job.seen_col + job.seen_rowptr[user + 1], item)) {
                    continue;
                  }
                }
                list.push(lanes[lane], item);
              }
            }
          }
        }
      }
    }
    for (int64_t u = 0; u < rows; ++u) {
      lists[u].finish();
      for (int64_t j = 0; j < k; ++j) {
        const bool there = j < lists[u].count;
        job.score[(first + u) * k + j] = there ? lists[u].entries[j].score : -std::numeric_limits<T>::infinity();
        job.index[(first + u) * k + j] = there ? lists[u].entries[j].index : -1;
      }
    }
  }
}

template <typename T>
int64_t topk_columns_at() {
  return kTileColumns<T>;
}

}  // namespace smore::SMORE_LEVEL
