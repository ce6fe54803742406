// Chunk by chunk, in vectors of the instruction level. A dot product is summed in blocks of some numbers, and the
// blocks in double.
#ifdef SMORE_LEVEL  // this file includes itself, once for each instruction level

#include "cpu/simd/bfloat16.inl"

namespace smore::SMORE_LEVEL {

template <typename S>
double step_chunk(const PolyFilterStep<S>& job, int64_t begin, int64_t end) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  constexpr int64_t kBlock = 512;
  const T c = *job.coefficient;
  double total = 0;
  int64_t i = begin;
  while (i + W <= end) {
    Vec<T> dots[4] = {};
    for (const int64_t last = std::min(i + kBlock, end); i + W <= last; i += W) {
      const Vec<T> h = load(job.h + i);
      Vec<T>& dot = dots[i / W % 4];
      dot = fma(h, load(job.x + i), dot);
      store(job.sum + i, job.before != nullptr ? fma(broadcast(c), h, load(job.before + i)) : broadcast(c) * h);
    }
    total += static_cast<double>(lane_sum<T>((dots[0] + dots[1]) + (dots[2] + dots[3])));
  }
  for (; i < end; ++i) {
    const T h = widened(job.h[i]);
    job.sum[i] = narrowed<S>(job.before != nullptr ? widened(job.before[i]) + c * h : c * h);
    total += static_cast<double>(h * widened(job.x[i]));
  }
  return total;
}

template <typename S>
void poly_filter_step_at(const PolyFilterStep<S>& job, Range chunks) {
  for (int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
    const int64_t begin = chunk * kPolyFilterChunk;
    job.partial[chunk] = step_chunk(job, begin, std::min(begin + kPolyFilterChunk, job.size));
  }
}

}  // namespace smore::SMORE_LEVEL

#else

#include "sparse/poly_filter_kernel.h"

#define SMORE_KERNEL_FILE "sparse/cpu/poly_filter_kernel.cpp"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename S>
void poly_filter_step(const PolyFilterStep<S>& job, Range chunks) {
  SMORE_DISPATCH(poly_filter_step_at<S>)(job, chunks);
}

template void poly_filter_step<float>(const PolyFilterStep<float>&, Range);
template void poly_filter_step<double>(const PolyFilterStep<double>&, Range);
template void poly_filter_step<BFloat16>(const PolyFilterStep<BFloat16>&, Range);

template <typename T>
void poly_filter_sums(const PolyFilterSums<T>& job, Range terms) {
  for (int64_t l = terms.begin; l < terms.end; ++l) {
    double sum = 0;
    for (int64_t c = 0; c < job.chunks; ++c) sum += job.partial[l * job.chunks + c];
    job.result[l] = static_cast<T>(sum);
  }
}

template void poly_filter_sums<float>(const PolyFilterSums<float>&, Range);
template void poly_filter_sums<double>(const PolyFilterSums<double>&, Range);

}  // namespace smore

#endif
