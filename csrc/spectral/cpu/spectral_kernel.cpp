#include "spectral/cpu/spectral_kernel.h"

#include <complex>
#include <map>
#include <mutex>

#include "cpu/fork.h"

#define SMORE_KERNEL_FILE "spectral/cpu/spectral_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {
namespace {

// A stage of radix r takes r steps an element, which a convolution does with fewer from here on.
constexpr int64_t kLargestRadix = 256;

std::vector<int64_t> factors(int64_t d) {
  std::vector<int64_t> result;
  int64_t twos = 0;
  for (; d % 2 == 0; d /= 2) ++twos;
  // As many radix-8 stages as possible, without ending in a lone 2 where two 4s do.
  if (twos % 3 == 1 && twos >= 4) {
    result = {4, 4};
    twos -= 4;
  } else if (twos % 3 == 1) {
    result = {2};
    twos -= 1;
  } else if (twos % 3 == 2) {
    result = {4};
    twos -= 2;
  }
  result.insert(result.begin(), static_cast<size_t>(twos / 3), 8);
  for (int64_t p = 3; d > 1; p += 2) {
    if (p * p > d) p = d;  // what is left is prime
    for (; d % p == 0; d /= p) result.push_back(p);
  }
  return result;
}

template <typename T>
void push_root(std::vector<T>& table, int64_t numerator, int64_t n) {
  const long double angle = -2.0L * 3.141592653589793238462643383279502884L * static_cast<long double>(numerator % n) /
                            static_cast<long double>(n);
  table.push_back(static_cast<T>(std::cos(angle)));
  table.push_back(static_cast<T>(std::sin(angle)));
}

// cos and sin of 2 pi (j + 1/2) k / d, j < d/4, at [j][k], or at [k][j] if `transposed`.
template <typename T>
std::unique_ptr<const WaveTable<T>> wave_table(int64_t d, int64_t kept, bool transposed) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t rows = transposed ? kept : d / 4, columns = transposed ? d / 4 : kept;
  const int64_t step = (columns + kLine - 1) / kLine * kLine;
  auto table = std::make_unique<WaveTable<T>>(rows, step);
  std::fill_n(table->cosine.get(), rows * step, T(0));
  std::fill_n(table->sine.get(), rows * step, T(0));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t j = transposed ? column : row, k = transposed ? row : column;
      std::vector<T> wave;
      push_root(wave, (2 * j + 1) * k, 2 * d);
      table->cosine.get()[row * step + column] = wave[0];
      table->sine.get()[row * step + column] = -wave[1];
    }
  }
  return table;
}

// In place: z[k] = sum_j z[j] e^(-2 pi i jk / n) for a power of two n.
void transform(std::vector<std::complex<double>>& z) {
  const size_t n = z.size();
  std::vector<std::complex<double>> root, next(n);
  std::vector<long double> wave;
  for (size_t k = 0; k < std::max<size_t>(n / 2, 1); ++k) {
    push_root(wave, static_cast<int64_t>(k), static_cast<int64_t>(n));
    root.emplace_back(static_cast<double>(wave[2 * k]), static_cast<double>(wave[2 * k + 1]));
  }
  for (size_t stride = 1; stride < n; stride *= 2) {  // Stockham, radix 2
    for (size_t p = 0; p < n / 2; p += stride) {
      for (size_t q = 0; q < stride; ++q) {
        const std::complex<double> a = z[p + q], b = z[p + q + n / 2];
        next[2 * p + q] = a + b;
        next[2 * p + q + stride] = (a - b) * root[p];
      }
    }
    z.swap(next);
  }
}

template <typename T>
std::shared_ptr<SpectralPlan<T>> staged_plan(int64_t d);

// Bluestein: with c_j = e^(-pi i j^2 / d), bin k is c_k times the convolution of x_j c_j with 1 / c_j.
template <typename T>
void make_chirp(SpectralPlan<T>& plan) {
  const int64_t d = plan.d;
  int64_t n = 1;
  while (n < 2 * d - 1) n *= 2;
  std::vector<std::complex<double>> inverse(static_cast<size_t>(n));
  std::vector<long double> wave;
  for (int64_t j = 0; j < d; ++j) {
    wave.clear();
    push_root(wave, j * j % (2 * d), 2 * d);
    plan.chirp.push_back(static_cast<T>(wave[0]));
    plan.chirp.push_back(static_cast<T>(wave[1]));
    const std::complex<double> value(static_cast<double>(wave[0]), -static_cast<double>(wave[1]));
    inverse[static_cast<size_t>(j)] = inverse[static_cast<size_t>((n - j) % n)] = value;
  }
  transform(inverse);
  for (const std::complex<double>& bin : inverse) {
    plan.chirp_spectrum.push_back(static_cast<T>(bin.real() / static_cast<double>(n)));
    plan.chirp_spectrum.push_back(static_cast<T>(bin.imag() / static_cast<double>(n)));
  }
  plan.convolution = staged_plan<T>(n);
}

template <typename T>
std::shared_ptr<const SpectralPlan<T>> make_plan(int64_t d, int64_t kept) {
  if (kept <= SMORE_DISPATCH(most_kept<T>)(d)) {
    auto plan = std::make_shared<SpectralPlan<T>>();
    plan->d = d;
    plan->kept = kept;
    plan->to_bins = wave_table<T>(d, kept, false);
    plan->to_rows = wave_table<T>(d, kept, true);
    return plan;
  }
  auto plan = staged_plan<T>(d);
  plan->kept = kept;
  return plan;
}

template <typename T>
std::shared_ptr<SpectralPlan<T>> staged_plan(int64_t d) {
  auto plan = std::make_shared<SpectralPlan<T>>();
  plan->d = d;
  plan->kept = d / 2 + 1;
  const std::vector<int64_t> radices = factors(d);
  if (!radices.empty() && *std::max_element(radices.begin(), radices.end()) > kLargestRadix) {
    make_chirp(*plan);
    return plan;
  }
  int64_t n = d, stride = 1;
  for (const int64_t radix : radices) {
    typename SpectralPlan<T>::Stage stage{radix, n / radix, stride, 0, 0};
    stage.twiddle = static_cast<int64_t>(plan->table.size());
    for (int64_t p = 0; p < stage.rest; ++p) {
      for (int64_t k = 1; k < radix; ++k) push_root(plan->table, p * k, n);
    }
    stage.root = static_cast<int64_t>(plan->table.size());
    for (int64_t k = 0; k < radix; ++k) push_root(plan->table, k, radix);
    plan->stages.push_back(stage);
    n /= radix;
    stride *= radix;
  }
  return plan;
}

}  // namespace

namespace {

template <typename T>
struct PlanCache {
  std::mutex mutex;
  std::map<std::pair<int64_t, int64_t>, std::shared_ptr<const SpectralPlan<T>>> plans;

  static std::mutex& lock_of_all() { return instance().mutex; }
  static PlanCache& instance() {
    static PlanCache* cache = made();  // never destroyed: threads may outlive every static object
    return *cache;
  }
  static PlanCache* made() {
    free_in_children<&lock_of_all>();
    return new PlanCache;
  }
};

}  // namespace

// A plan is made outside the lock: another thread may have use for another one, and may fork. If two make the same one,
// the first stays.
template <typename T>
std::shared_ptr<const SpectralPlan<T>> spectral_plan(int64_t d, int64_t kept) {
  PlanCache<T>& cache = PlanCache<T>::instance();
  {
    const std::lock_guard<std::mutex> lock(cache.mutex);
    if (const auto found = cache.plans.find({d, kept}); found != cache.plans.end()) return found->second;
  }
  const auto plan = make_plan<T>(d, kept);
  const std::lock_guard<std::mutex> lock(cache.mutex);
  constexpr size_t kMaxPlans = 64;
  if (cache.plans.size() >= kMaxPlans) cache.plans.clear();
  return cache.plans.emplace(std::pair(d, kept), plan).first->second;
}

template <typename T>
void spectral_forward(const SpectralForward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(spectral_forward_at<T>)(job, begin, end);
}

template <typename T>
void spectral_backward(const SpectralBackward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(spectral_backward_at<T>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                          \
  template std::shared_ptr<const SpectralPlan<T>> spectral_plan<T>(int64_t, int64_t); \
  template void spectral_forward<T>(const SpectralForward<T>&, int64_t, int64_t);     \
  template void spectral_backward<T>(const SpectralBackward<T>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
