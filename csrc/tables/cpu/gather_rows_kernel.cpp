#include "tables/cpu/gather_rows_kernel.h"

#include <algorithm>
#include <cstring>

namespace smore {

template <typename S>
void gather_rows(const Gather<S>& job, Range places) {
  const size_t bytes = static_cast<size_t>(job.width) * sizeof(S);
  if (bytes == 0) return;
  for (int64_t b = places.begin; b < places.end; ++b) {
    std::memcpy(job.out + b * job.width, job.table + job.index[b] * job.width, bytes);
  }
}

void RowChains::make(const int64_t* index, int64_t size) const {
  std::fill_n(first, rows.end - rows.begin, -1);
  for (int64_t b = size - 1; b >= 0; --b) {  // from the end, so that chains ascend
    if (index[b] < rows.begin || index[b] >= rows.end) continue;
    int32_t& head = first[index[b] - rows.begin];
    next[b] = head;
    head = static_cast<int32_t>(b);
  }
}

template <typename S>
void gather_rows_backward(const GatherBackward<S>& job, const RowChains& chains, Accumulator<S>* sum) {
  const int64_t width = job.width;
  for (int64_t r = chains.rows.begin; r < chains.rows.end; ++r) {
    S* to = job.out + r * width;
    const int32_t b = chains.first[r - chains.rows.begin];
    if (b < 0) {
      std::fill_n(to, width, S{});
      continue;
    }
    const S* only = job.grad + b * width;
    if (chains.next[b] < 0) {
      std::copy_n(only, width, to);
      continue;
    }
    for (int64_t i = 0; i < width; ++i) sum[i] = widened(only[i]);
    for (int32_t at = chains.next[b]; at >= 0; at = chains.next[at]) {
      const S* more = job.grad + at * width;
      for (int64_t i = 0; i < width; ++i) sum[i] += widened(more[i]);
    }
    for (int64_t i = 0; i < width; ++i) to[i] = narrowed<S>(sum[i]);
  }
}

template void gather_rows<float>(const Gather<float>&, Range);
template void gather_rows<double>(const Gather<double>&, Range);
template void gather_rows<BFloat16>(const Gather<BFloat16>&, Range);
template void gather_rows_backward<float>(const GatherBackward<float>&, const RowChains&, float*);
template void gather_rows_backward<double>(const GatherBackward<double>&, const RowChains&, double*);
template void gather_rows_backward<BFloat16>(const GatherBackward<BFloat16>&, const RowChains&, float*);

}  // namespace smore
