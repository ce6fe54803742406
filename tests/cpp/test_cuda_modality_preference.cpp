// modality_preference on the CPU and on the emulated device, against its definition in double; sizes leave tails.
#include "cuda_harness.h"
#include "views/modality_preference_kernel.h"

namespace {

constexpr double kP = 0.3;
constexpr int64_t kSeed = 77, kOffset = 5;

template <typename T>
struct Results {
  Results(int64_t n, int64_t M, int64_t d)
      : side(n * d), grad_gates(n * (M + 1) * d), grad_attention(M * n * d), grad_views(n * (M + 1) * d) {}
  harness::Array<T> side, grad_gates, grad_attention, grad_views;
};

template <typename T>
struct Problem {
  int64_t n, M, d;
  bool drops;
  harness::Array<T> gates, attention, views, grad;

  Problem(int64_t n, int64_t M, int64_t d, bool drops)
      : n(n),
        M(M),
        d(d),
        drops(drops),
        gates(harness::random_values<T>(n * (M + 1) * d, 1)),
        attention(harness::random_values<T>(M * n * d, 2)),
        views(harness::random_values<T>(n * (M + 1) * d, 3)),
        grad(harness::random_values<T>(n * d, 4)) {}

  harness::Array<int64_t> step{std::vector<int64_t>{kOffset}};
  bool by_tensor = false;
  smore::DropoutRule<T> rule() const {
    return smore::DropoutRule<T>::of(drops ? kP : 0, kSeed, by_tensor ? 0 : kOffset, by_tensor ? step.data() : nullptr);
  }
  smore::Preference<T> of() const { return {gates.data(), attention.data(), views.data(), n, M, d, rule()}; }
  smore::PreferenceForward<T> forward(Results<T>& out) const { return {of(), out.side.data()}; }
  smore::PreferenceBackward<T> backward(Results<T>& out) const {
    return {of(), grad.data(), out.grad_gates.data(), out.grad_attention.data(), out.grad_views.data()};
  }
};

template <typename T>
Results<T> on_cpu(const Problem<T>& problem, int threads) {
  Results<T> out(problem.n, problem.M, problem.d);
  harness::run_ranges(problem.n, threads, [&](int64_t begin, int64_t end) {
    smore::modality_preference(problem.forward(out), smore::Range{begin, end});
    smore::modality_preference_backward(problem.backward(out), smore::Range{begin, end});
  });
  return out;
}

template <typename T>
Results<T> on_device(const Problem<T>& problem) {
  Results<T> out(problem.n, problem.M, problem.d);
  smore::modality_preference(problem.forward(out), smore::CudaStream{});
  smore::modality_preference_backward(problem.backward(out), smore::CudaStream{});
  return out;
}

template <typename T>
void check_same(const Results<T>& a, const Results<T>& b) {
  CHECK(harness::same_bits(a.side.values(), b.side.values()));
  CHECK(harness::same_bits(a.grad_gates.values(), b.grad_gates.values()));
  CHECK(harness::same_bits(a.grad_attention.values(), b.grad_attention.values()));
  CHECK(harness::same_bits(a.grad_views.values(), b.grad_views.values()));
}

template <typename T>
void check_right(const Problem<T>& p, const Results<T>& got) {
  const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;
  const auto factor = [&](int64_t place) {
    const uint64_t counter = static_cast<uint64_t>(place / 64 * 16 + place % 16) | uint64_t{1} << 63;
    const bool kept = smore::philox(kSeed, counter, kOffset).out[place % 64 / 16] >= kP * 4294967296.0;
    return !p.drops ? 1 : kept ? 1 / (1 - kP) : 0.0;
  };
  for (int64_t r = 0; r < p.n; ++r) {
    std::vector<double> side(static_cast<size_t>(p.d));
    for (int64_t m = 0; m <= p.M; ++m) {
      const int64_t row = r * (p.M + 1) * p.d + m * p.d, logits = (m * p.n + r) * p.d;
      double total = 0, mean = 0;
      for (int64_t i = 0; m < p.M && i < p.d; ++i) total += std::exp(double(p.attention[logits + i]));
      const auto weight = [&](int64_t i) { return m < p.M ? std::exp(double(p.attention[logits + i])) / total : 1; };
      const auto gate = [&](int64_t i) { return 1 / (1 + std::exp(-double(p.gates[row + i]))); };
      const auto incoming = [&](int64_t i) { return double(p.grad[r * p.d + i]) / double(p.M + 1) * factor(row + i); };
      for (int64_t i = 0; i < p.d; ++i) {
        const double s = gate(i), v = double(p.views[row + i]), w = weight(i);
        side[static_cast<size_t>(i)] += factor(row + i) * s * w * v / double(p.M + 1);
        mean += w * incoming(i) * s * v;
        CHECK_NEAR(got.grad_views[row + i], incoming(i) * s * w, tolerance);
        CHECK_NEAR(got.grad_gates[row + i], incoming(i) * w * v * s * (1 - s), tolerance);
      }
      for (int64_t i = 0; m < p.M && i < p.d; ++i) {
        const double along = incoming(i) * gate(i) * double(p.views[row + i]);
        CHECK_NEAR(got.grad_attention[logits + i], weight(i) * (along - mean), tolerance);
      }
    }
    for (int64_t i = 0; i < p.d; ++i) CHECK_NEAR(got.side[r * p.d + i], side[static_cast<size_t>(i)], tolerance);
  }
}

template <typename T>
void check_size(int64_t n, int64_t M, int64_t d) {
  for (const bool drops : {false, true}) {
    Problem<T> problem(n, M, d, drops);
    const Results<T> cpu = on_cpu(problem, 1), device = on_device(problem);
    check_right(problem, cpu);
    check_right(problem, device);
    check_same(cpu, on_cpu(problem, 3));
    harness::each_order([&] { check_same(device, on_device(problem)); });
    problem.by_tensor = true;
    check_same(cpu, on_cpu(problem, 1));
    check_same(device, on_device(problem));
  }
}

template <typename T>
void check_sizes() {
  check_size<T>(0, 2, 5);
  check_size<T>(5, 2, 0);
  check_size<T>(1, 1, 1);
  check_size<T>(3, 0, 4);
  check_size<T>(19, 2, 64);
  check_size<T>(11, 3, 33);
  check_size<T>(7, 1, 130);
}

}  // namespace

TEST(float_rows_are_right_and_the_same_in_every_order) { check_sizes<float>(); }
TEST(double_rows_are_right_and_the_same_in_every_order) { check_sizes<double>(); }
