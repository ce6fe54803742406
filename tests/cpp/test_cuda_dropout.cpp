// dropout on the CPU and on the emulated device against the generator itself; sizes leave tails.
#include "cuda_harness.h"
#include "sampling/dropout_kernel.h"

namespace {

constexpr int64_t kSeed = 77, kOffset = (int64_t{3} << 32) + 5;
constexpr double kP = 0.3;

template <typename S>
std::vector<S> values(int64_t size) {
  std::vector<S> out;
  for (const float value : harness::random_values<float>(size, 1)) {
    out.push_back(smore::narrowed<S>(static_cast<smore::Accumulator<S>>(value)));
  }
  return out;
}

template <typename S>
struct Problem {
  harness::Array<S> x;
  harness::Array<int64_t> step{std::vector<int64_t>{static_cast<int64_t>(kOffset)}};
  explicit Problem(int64_t size) : x(values<S>(size)) {}
  smore::Dropout<S> job(harness::Array<S>& y, bool by_tensor) const {
    return {x.data(), x.size(),
            smore::DropoutRule<smore::Accumulator<S>>::of(kP, kSeed, by_tensor ? 0 : kOffset,
                                                          by_tensor ? step.data() : nullptr),
            y.data()};
  }
};

template <typename S>
std::vector<S> on_cpu(const Problem<S>& problem, int threads, bool by_tensor = false) {
  harness::Array<S> y(problem.x.size());
  const smore::Dropout<S> job = problem.job(y, by_tensor);
  harness::run_ranges(job.groups(), threads,
                      [&](int64_t begin, int64_t end) { smore::dropout(job, smore::Range{begin, end}); });
  return y.values();
}

template <typename S>
std::vector<S> on_device(const Problem<S>& problem, bool by_tensor = false) {
  harness::Array<S> y(problem.x.size());
  smore::dropout(problem.job(y, by_tensor), smore::CudaStream{});
  return y.values();
}

template <typename S>
void compare(int64_t size) {
  const Problem<S> problem(size);
  const std::vector<S> got = on_cpu(problem, 1);
  for (int64_t i = 0; i < size; ++i) {
    const uint64_t counter = static_cast<uint64_t>(i / 64 * 16 + i % 16) | uint64_t{1} << 63;
    const bool kept = smore::philox(kSeed, counter, kOffset).out[i % 64 / 16] >= kP * 4294967296.0;
    const auto wanted = kept ? smore::widened(problem.x[i]) * smore::Accumulator<S>(1 / (1 - kP)) : 0;
    CHECK(smore::widened(got[i]) == smore::widened(smore::narrowed<S>(wanted)));
  }
  for (const bool by_tensor : {false, true}) {
    CHECK(harness::same_bits(got, on_cpu(problem, 3, by_tensor)));
    harness::each_order([&] { CHECK(harness::same_bits(got, on_device(problem, by_tensor))); });
  }
}

}  // namespace

TEST(the_words_of_the_generator_decide) {
  for (const int64_t size : {1, 15, 16, 63, 64, 65, 1000, 4097}) {
    compare<float>(size);
    compare<double>(size);
    compare<smore::BFloat16>(size);
  }
}
