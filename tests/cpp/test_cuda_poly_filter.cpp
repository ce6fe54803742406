// What backward of poly_filter does between its products, on the CPU and on the emulated device, against its definition
// in double.
#include "cuda_harness.h"
#include "sparse/poly_filter_kernel.h"

namespace {

using harness::Array;
using smore::Accumulator;
using smore::BFloat16;

template <typename S>
double wide(S value) {
  return static_cast<double>(smore::widened(value));
}

template <typename S>
Array<S> values(int64_t count, unsigned seed) {
  std::vector<S> result;
  for (const auto v : harness::random_values<Accumulator<S>>(count, seed)) result.push_back(smore::narrowed<S>(v));
  return Array<S>(result);
}

template <typename S>
struct Problem {
  int64_t size;
  Array<S> h, x, before;
  Array<Accumulator<S>> coefficient;
  explicit Problem(int64_t size)
      : size(size),
        h(values<S>(size, 1)),
        x(values<S>(size, 2)),
        before(values<S>(size, 3)),
        coefficient(harness::random_values<Accumulator<S>>(1, 4)) {}
};

template <typename S>
struct Results {
  Array<S> sum;
  Array<double> partial;
  explicit Results(int64_t size) : sum(size), partial(smore::poly_filter_chunks(size)) {}
};

// The first term, with nothing before it, or another one, to what was there.
template <typename S, typename F>
Results<S> step(const Problem<S>& p, bool first, const F& run) {
  Results<S> out(p.size);
  if (!first && p.size > 0) std::memcpy(static_cast<void*>(out.sum.data()), p.before.data(), p.size * sizeof(S));
  const S* before = first ? nullptr : out.sum.data();
  run(smore::PolyFilterStep<S>{p.size, p.h.data(), p.x.data(), p.coefficient.data(), before, out.sum.data(),
                               out.partial.data()});
  return out;
}

template <typename S>
Results<S> on_cpu(const Problem<S>& p, bool first, int threads) {
  return step(p, first, [&](const auto& job) {
    harness::run_ranges(smore::poly_filter_chunks(p.size), threads,
                        [&](int64_t begin, int64_t end) { smore::poly_filter_step(job, smore::Range{begin, end}); });
  });
}

template <typename S>
Results<S> on_device(const Problem<S>& p, bool first) {
  return step(p, first, [](const auto& job) { smore::poly_filter_step(job, smore::CudaStream{}); });
}

template <typename S>
void check_same(const Results<S>& a, const Results<S>& b) {
  CHECK(harness::same_bits(a.sum.values(), b.sum.values()));
  CHECK(harness::same_bits(a.partial.values(), b.partial.values()));
}

template <typename S>
void check_right(const Problem<S>& p, bool first, const Results<S>& got) {
  const double unit = sizeof(S) == 2 ? 1.0 / 256 : sizeof(S) == 4 ? 2e-7 : 1e-15;
  double dot = 0, found = 0;
  for (int64_t i = 0; i < p.size; ++i) {
    const double wanted = (first ? 0 : wide(p.before[i])) + double(p.coefficient[0]) * wide(p.h[i]);
    CHECK_NEAR(wide(got.sum[i]), wanted, unit * 2);
    dot += wide(p.h[i]) * wide(p.x[i]);
  }
  for (int64_t c = 0; c < got.partial.size(); ++c) found += got.partial[c];
  CHECK_NEAR(found, dot, (sizeof(S) == 8 ? 1e-12 : 1e-4) * (1 + std::fabs(dot)));
}

template <typename S>
void check_sizes() {
  for (const int64_t size : {0, 1, 33, 4095, 4096, 4097, 9000}) {
    const Problem<S> p(size);
    for (const bool first : {true, false}) {
      const Results<S> cpu = on_cpu(p, first, 1), device = on_device(p, first);
      check_right(p, first, cpu);
      check_right(p, first, device);
      check_same(cpu, on_cpu(p, first, 3));
      harness::each_order([&] { check_same(device, on_device(p, first)); });
    }
  }
}

template <typename T>
void check_sums(int64_t terms, int64_t chunks) {
  const Array<double> partial(harness::random_values<double>(terms * chunks, 5));
  Array<T> cpu(terms), device(terms);
  smore::poly_filter_sums<T>({partial.data(), terms, chunks, cpu.data()}, smore::Range{0, terms});
  harness::each_order([&] {
    smore::poly_filter_sums<T>({partial.data(), terms, chunks, device.data()}, smore::CudaStream{});
    for (int64_t l = 0; l < terms; ++l) {
      double wanted = 0;
      for (int64_t c = 0; c < chunks; ++c) wanted += partial[l * chunks + c];
      CHECK_NEAR(cpu[l], wanted, sizeof(T) == 4 ? 1e-4 : 1e-12);
      CHECK_NEAR(device[l], wanted, sizeof(T) == 4 ? 1e-4 : 1e-12);
    }
  });
}

}  // namespace

TEST(float_steps) { check_sizes<float>(); }
TEST(double_steps) { check_sizes<double>(); }
TEST(bfloat16_steps) { check_sizes<BFloat16>(); }

TEST(sums_of_chunks) {
  check_sums<float>(3, 1000);
  check_sums<double>(5, 17);
  check_sums<float>(1, 1);
  check_sums<double>(2, 0);
}
