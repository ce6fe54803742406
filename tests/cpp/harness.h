// A small harness for tests of the torch-free core. One source file is one program: this header brings its
// main().
//
//   TEST(rows_are_summed) { CHECK(n == 3); CHECK_NEAR(y[0], 1.5, 1e-6); }
//
// Checks may run in worker threads. A failed one is printed and ends neither its test nor the program. The
// last line reads "N passed, N failed" and counts tests; the exit code is 1 if any failed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <thread>
#include <vector>

namespace harness {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline std::atomic<int> failed_checks{0};

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline void check(bool holds, const char* text, const char* file, int line) {
  if (holds) return;
  ++failed_checks;
  std::printf("%s:%d: failed: %s\n", file, line, text);
}

inline void check_near(double got, double wanted, double tolerance, const char* text, const char* file, int line) {
  if (std::fabs(got - wanted) <= tolerance || got == wanted) return;  // NaN is near nothing, infinity near itself
  ++failed_checks;
  std::printf("%s:%d: failed: %s: got %.9g, wanted %.9g within %.3g\n", file, line, text, got, wanted, tolerance);
}

// `count` values between -1 and 1, the same for the same seed.
template <typename T>
std::vector<T> random_values(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(uniform(generator));
  return values;
}

// `count` numbers in 0 .. limit - 1, the same for the same seed.
inline std::vector<int64_t> random_ids(int64_t count, int64_t limit, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int64_t> uniform(0, limit - 1);
  std::vector<int64_t> ids(static_cast<size_t>(count));
  for (int64_t& id : ids) id = uniform(generator);
  return ids;
}

// Runs f(begin, end) on `threads` threads with ranges that cover [0, n), as the bindings do on torch's
// threads.
template <typename F>
void run_ranges(int64_t n, int threads, const F& f) {
  std::vector<std::thread> workers;
  const int64_t chunk = (n + threads - 1) / threads;
  for (int64_t begin = 0; begin < n; begin += chunk) {
    workers.emplace_back([&f, begin, end = std::min(n, begin + chunk)] { f(begin, end); });
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace harness

#define CHECK(condition) ::harness::check(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_NEAR(got, wanted, tolerance) \
  ::harness::check_near(got, wanted, tolerance, #got " near " #wanted, __FILE__, __LINE__)
#define TEST(name)                                                           \
  static void test_##name();                                                 \
  static const ::harness::Registration register_##name{#name, &test_##name}; \
  static void test_##name()

int main() {
  int failed = 0;
  for (const harness::Test& test : harness::tests()) {
    const int before = harness::failed_checks;
    try {
      test.run();
    } catch (const std::exception& error) {
      ++harness::failed_checks;
      std::printf("%s: threw %s\n", test.name, error.what());
    }
    if (harness::failed_checks == before) continue;
    ++failed;
    std::printf("FAILED %s\n", test.name);
  }
  std::printf("%d passed, %d failed\n", static_cast<int>(harness::tests().size()) - failed, failed);
  return failed == 0 ? 0 : 1;
}
