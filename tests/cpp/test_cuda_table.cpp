// Adam with a factored gradient on the emulated device: the bits of the formula written as a plain loop, and close to
// the CPU kernel and to double precision. Sizes leave tails, pointers may be off by one element, and sums may be deep.
#include "cuda_harness.h"
#include "tables/cpu/factored_adam_kernel.h"
#include "tables/cuda/factored_adam_kernel.h"

namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8, kRate = 0.0078125;  // the rate is the same as a float

template <typename T>
struct State {
  std::vector<T> param, average, square;
};

template <typename T>
struct Problem {
  int64_t n, width, d;
  State<T> before;
  std::vector<T> rows, factor;
  double step = 3;

  Problem(int64_t n, int64_t width, int64_t d) : n(n), width(width), d(d) {
    before = {harness::random_values<T>(n * width, 1), harness::random_values<T>(n * width, 2),
              harness::random_values<T>(n * width, 3)};
    for (T& v : before.square) v = v * v + T(0.01);
    rows = harness::random_values<T>(n * d, 4);
    factor = harness::random_values<T>(d * width, 5);
  }
};

// The formula in type C, sums in the order of their terms.
template <typename C, typename T>
State<C> by_definition(const Problem<T>& problem) {
  const auto convert = [](const std::vector<T>& from) { return std::vector<C>(from.begin(), from.end()); };
  State<C> out{convert(problem.before.param), convert(problem.before.average), convert(problem.before.square)};
  const C minus_step = static_cast<C>(-(kRate / (1 - std::pow(kBeta1, problem.step))));
  const C root_correction = static_cast<C>(1 / std::sqrt(1 - std::pow(kBeta2, problem.step)));
  for (int64_t i = 0; i < problem.n * problem.width; ++i) {
    C grad = 0;
    for (int64_t k = 0; k < problem.d; ++k) {
      grad = std::fma(static_cast<C>(problem.rows[i / problem.width * problem.d + k]),
                      static_cast<C>(problem.factor[k * problem.width + i % problem.width]), grad);
    }
    out.average[i] = std::fma(grad - out.average[i], static_cast<C>(1 - kBeta1), out.average[i]);
    out.square[i] = std::fma(static_cast<C>(1 - kBeta2) * grad, grad, out.square[i] * static_cast<C>(kBeta2));
    const C size = std::fma(std::sqrt(out.square[i]), root_correction, static_cast<C>(kEps));
    out.param[i] = std::fma(minus_step, out.average[i] / size, out.param[i]);
  }
  return out;
}

template <typename T>
State<T> on_cpu(const Problem<T>& problem) {
  State<T> out = problem.before;
  const int64_t count = smore::adam_panels<T>(problem.width);
  std::vector<T> panels(count * smore::adam_panel_elements<T>(problem.d));
  smore::adam_pack(problem.factor.data(), problem.d, problem.width, panels.data(), 0, count);
  smore::factored_adam(smore::FactoredAdam<T>{out.param.data(), out.average.data(), out.square.data(),
                                              problem.rows.data(), panels.data(), problem.n, problem.width, problem.d,
                                              kRate / (1 - std::pow(kBeta1, problem.step)), kBeta1, kBeta2,
                                              std::sqrt(1 - std::pow(kBeta2, problem.step)), kEps},
                       0, (problem.n + smore::kAdamRows - 1) / smore::kAdamRows);
  return out;
}

// An array whose first `skip` elements belong to somebody else, as with a slice of a larger tensor.
template <typename T>
class Slice {
 public:
  Slice(const std::vector<T>& values, int64_t skip) : skip_(skip), all_(with_front(values, skip)) {}
  T* data() { return all_.data() + skip_; }
  std::vector<T> values() const { return std::vector<T>(all_.data() + skip_, all_.data() + all_.size()); }
  bool front_untouched() const { return skip_ == 0 || all_[0] == T(77); }

 private:
  static std::vector<T> with_front(std::vector<T> values, int64_t skip) {
    values.insert(values.begin(), static_cast<size_t>(skip), T(77));
    return values;
  }
  int64_t skip_;
  harness::Array<T> all_;
};

// Where the step number and the learning rate are.
enum class Place { host, float_on_device, double_on_device };

template <typename T>
State<T> on_device(const Problem<T>& problem, int rounds, int64_t skip, Place place) {
  Slice<T> param(problem.before.param, skip), average(problem.before.average, skip),
      square(problem.before.square, skip), rows(problem.rows, skip), factor(problem.factor, skip);
  const std::vector<double> values{problem.step, kRate};
  const harness::Array<float> floats(std::vector<float>(values.begin(), values.end()));
  const harness::Array<double> doubles(values);
  const auto scalar = [&](int i) -> smore::cuda::Scalar {
    if (place == Place::host) return {values[i]};
    if (place == Place::float_on_device) return {0, floats.data() + i};
    return {0, nullptr, doubles.data() + i};
  };
  smore::cuda::factored_adam(
      smore::cuda::FactoredAdam<T>{param.data(), average.data(), square.data(), rows.data(), factor.data(), problem.n,
                                   problem.width, problem.d, kBeta1, kBeta2, kEps, scalar(0), scalar(1)},
      rounds, nullptr);
  CHECK(param.front_untouched() && average.front_untouched() && square.front_untouched());
  CHECK(rows.values() == problem.rows && factor.values() == problem.factor);
  return {param.values(), average.values(), square.values()};
}

template <typename T>
void near(const State<T>& got, const State<double>& wanted, double tolerance) {
  const auto each = [&](const std::vector<T>& a, const std::vector<double>& b) {
    CHECK(a.size() == b.size());
    for (size_t i = 0; i < a.size(); ++i) CHECK_NEAR(a[i], b[i], tolerance * (1 + std::fabs(b[i])));
  };
  each(got.param, wanted.param);
  each(got.average, wanted.average);
  each(got.square, wanted.square);
}

template <typename T>
void compare(int64_t n, int64_t width, int64_t d, int rounds, int64_t skip = 0) {
  const Problem<T> problem(n, width, d);
  const State<T> loop = by_definition<T>(problem);
  harness::each_order([&] {
    const State<T> got = on_device(problem, rounds, skip, Place::host);
    CHECK(harness::same_bits(got.param, loop.param));
    CHECK(harness::same_bits(got.average, loop.average));
    CHECK(harness::same_bits(got.square, loop.square));
  });
  near(loop, by_definition<double>(problem), sizeof(T) == 4 ? 4e-6 : 1e-15);
  if (d == 0) return;
  const State<T> cpu = on_cpu(problem);
  near(loop,
       {std::vector<double>(cpu.param.begin(), cpu.param.end()),
        std::vector<double>(cpu.average.begin(), cpu.average.end()),
        std::vector<double>(cpu.square.begin(), cpu.square.end())},
       sizeof(T) == 4 ? 2e-6 : 4e-15);
}

template <typename T>
void compare_all() {
  compare<T>(1, 1, 1, 1);
  compare<T>(0, 8, 3, 1);
  compare<T>(3, 0, 3, 1);
  compare<T>(9, 136, 0, 1);
  compare<T>(70, 132, 64, 1);     // two tiles across and two blocks down, both with tails
  compare<T>(131, 140, 33, 2);    // one block passes over two tiles of rows, the next over one
  compare<T>(70, 132, 64, 1, 1);  // off by one element
  compare<T>(67, 131, 5, 2);      // odd rows: no packs
  compare<T>(137, 68, 130, 2);    // three shares of the sums, in two rounds
  compare<T>(65, 67, 65, 1);      // the same without packs
}

}  // namespace

TEST(float_adam_has_the_bits_of_its_definition) { compare_all<float>(); }
TEST(double_adam_has_the_bits_of_its_definition) { compare_all<double>(); }

TEST(step_and_rate_may_be_on_the_device) {
  for (const double step : {1.0, 2.0, 1000.0, 1e7}) {
    Problem<float> problem(5, 12, 7);
    problem.step = step;
    const State<float> wanted = by_definition<float>(problem);
    for (const Place place : {Place::host, Place::float_on_device, Place::double_on_device}) {
      CHECK(harness::same_bits(on_device(problem, 1, 0, place).param, wanted.param));
    }
  }
}

TEST(unusual_values_pass_through) {
  Problem<float> problem(2, 8, 4);
  problem.before.square.assign(16, 0.0f);  // and no gradient: eps alone keeps the division finite
  problem.before.average.assign(16, 0.0f);
  std::fill(problem.rows.begin(), problem.rows.begin() + 4, 0.0f);
  problem.rows[5] = std::numeric_limits<float>::infinity();
  const State<float> got = on_device(problem, 1, 0, Place::host), wanted = by_definition<float>(problem);
  for (int i = 0; i < 8; ++i) CHECK(got.param[i] == problem.before.param[i]);
  for (int i = 8; i < 16; ++i) CHECK(std::isnan(got.param[i]) && std::isnan(wanted.param[i]));
}

TEST(rounds_fit_the_grid) {
  CHECK(smore::cuda::adam_rounds<float>(0, 0) == 1);
  CHECK(smore::cuda::adam_rounds<float>(7050, 384) == 1);
  CHECK(smore::cuda::adam_rounds<float>(250000, 4096) == 8);
  const int64_t many = int64_t{3} << 30;
  CHECK(many / 64 / smore::cuda::adam_rounds<float>(many, 4) < 65536);
}
