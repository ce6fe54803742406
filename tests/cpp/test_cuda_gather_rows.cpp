// gather_rows on the CPU and on the emulated device: rows bit for bit, gradients against sums in double.
#include "cuda_harness.h"
#include "tables/cpu/gather_rows_kernel.h"
#include "tables/cuda/gather_rows_kernel.h"

namespace {

template <typename S>
std::vector<S> values(int64_t count, unsigned seed) {
  std::vector<S> out;
  for (const float value : harness::random_values<float>(count, seed)) {
    out.push_back(smore::narrowed<S>(static_cast<smore::Accumulator<S>>(value)));
  }
  return out;
}

template <typename S>
struct Problem {
  int64_t n, size, width;
  harness::Array<S> table, grad;
  harness::Array<int64_t> index;

  // The first `popular` places name one row, some others are out of range if `strays`.
  Problem(int64_t n, int64_t size, int64_t width, int64_t popular, bool strays)
      : n(n),
        size(size),
        width(width),
        table(values<S>(n * width, 1)),
        grad(values<S>(size * width, 2)),
        index(harness::random_ids(size, n, 3)) {
    for (int64_t b = 0; b < popular; ++b) index.data()[b] = n / 2;
    for (int64_t b = 0; strays && b < size; b += 7) index.data()[b] = b % 2 == 0 ? -1 : n;
  }
  bool known(int64_t b) const { return index[b] >= 0 && index[b] < n; }
};

template <typename S>
struct Results {
  explicit Results(const Problem<S>& p) : rows(p.size * p.width), grad(p.n * p.width) {}
  harness::Array<S> rows, grad;
};

template <typename S>
Results<S> on_cpu(const Problem<S>& p, int threads) {
  Results<S> out(p);
  harness::run_ranges(p.size, threads, [&](int64_t begin, int64_t end) {
    smore::gather_rows<S>({p.table.data(), p.index.data(), p.width, out.rows.data()}, smore::Range{begin, end});
  });
  harness::run_ranges(p.n, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> first(static_cast<size_t>(end - begin)), next(static_cast<size_t>(p.size));
    std::vector<smore::Accumulator<S>> sum(static_cast<size_t>(p.width));
    const smore::RowChains chains{{begin, end}, first.data(), next.data()};
    chains.make(p.index.data(), p.size);
    smore::gather_rows_backward<S>({p.grad.data(), p.width, out.grad.data()}, chains, sum.data());
  });
  return out;
}

template <typename S>
Results<S> on_device(const Problem<S>& p) {
  Results<S> out(p);
  smore::cuda::gather_rows<S>(p.table.data(), p.n, p.width, p.index.data(), p.size, out.rows.data(), nullptr);
  harness::Array<int32_t> scratch(smore::cuda::gather_scratch(p.n, p.size));
  smore::cuda::gather_lists(p.index.data(), p.size, p.n, scratch.data(), nullptr);
  smore::cuda::gather_rows_backward<S>(p.grad.data(), p.index.data(), p.size, p.n, p.width, scratch.data(),
                                       out.grad.data(), nullptr);
  return out;
}

template <typename S>
void check_right(const Problem<S>& p, const Results<S>& got) {
  const double unit = sizeof(S) == 8 ? 1e-15 : 1e-7, tolerance = sizeof(S) == 2 ? 0.1 : unit * double(p.size + 9);
  std::vector<double> sums(static_cast<size_t>(p.n * p.width));
  for (int64_t b = 0; b < p.size; ++b) {
    for (int64_t i = 0; i < p.width; ++i) {
      const auto wanted = p.known(b) ? smore::widened(p.table[p.index[b] * p.width + i]) : 0;
      CHECK(smore::widened(got.rows[b * p.width + i]) == wanted);
      if (p.known(b)) sums[static_cast<size_t>(p.index[b] * p.width + i)] += smore::widened(p.grad[b * p.width + i]);
    }
  }
  for (int64_t i = 0; i < p.n * p.width; ++i) {
    CHECK_NEAR(smore::widened(got.grad[i]), sums[static_cast<size_t>(i)], tolerance);
  }
}

template <typename S>
void check_same(const Results<S>& a, const Results<S>& b) {
  CHECK(harness::same_bits(a.rows.values(), b.rows.values()));
  CHECK(harness::same_bits(a.grad.values(), b.grad.values()));
}

template <typename S>
void check_size(int64_t n, int64_t size, int64_t width, int64_t popular = 0) {
  const Problem<S> problem(n, size, width, popular, false), strays(n, size, width, popular, true);
  const Results<S> cpu = on_cpu(problem, 1), device = on_device(problem);
  check_right(problem, cpu);
  check_right(problem, device);
  check_right(strays, on_device(strays));
  check_same(cpu, on_cpu(problem, 3));
  harness::each_order([&] { check_same(device, on_device(problem)); });
}

template <typename S>
void check_sizes() {
  check_size<S>(1, 1, 1);
  check_size<S>(4, 0, 3);
  check_size<S>(4, 6, 0);
  check_size<S>(9, 5, 3);
  check_size<S>(40, 100, 64);
  check_size<S>(300, 200, 33);
  check_size<S>(30, 80, 130, 9);     // a row of one entry more than its list holds
  check_size<S>(5, 1200, 16, 1100);  // more than a block looks at
}

}  // namespace

TEST(float_rows_are_right_and_the_same_in_every_order) { check_sizes<float>(); }
TEST(double_rows_are_right_and_the_same_in_every_order) { check_sizes<double>(); }
TEST(bfloat16_rows_are_summed_in_float) { check_sizes<smore::BFloat16>(); }
