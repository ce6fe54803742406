// The spectral CUDA kernels where few bins are kept, or no filtered arrays are wanted.
#include "cuda_spectral.h"

namespace {

using namespace spectral;

template <typename T>
Problem<T> keeping(int64_t kept, int64_t n, int64_t d, int64_t m, bool filtered = true) {
  Problem<T> p(n, d, m);
  p.kept = kept, p.filtered = filtered;
  return p;
}

}  // namespace

TEST(fast_transforms) {
  for (const int64_t d : kWidths) {
    for (const int64_t kept : {int64_t{1}, d / 4, d / 2}) {
      if (harness::kSanitized && d > 128 && kept != d / 4) continue;
      rows_case(keeping<float>(kept, 9, d, 2), true);
      rows_case(keeping<double>(kept, 5, d, 3), true);
      rows_case(keeping<float>(kept, 9, d, 2, false), true);
    }
    rows_case(keeping<float>(3, 7, d, 3, false), true);
    rows_case(keeping<double>(3, 7, d, 1, false), true);
  }
}

// All columns, some of them filtered out; and windows, of which the last has few numbers or all, up to 32 of them.
TEST(by_definition) {
  for (const int64_t d : {2, 7, 15, 17, 24, 33, 46, 61, 63, 65, 76, 77, 100, 300, 480}) {
    for (const int64_t kept : {1, 8, 9, 17, 30}) {
      if (kept > d / 2 + 1 || smore::cuda::spectral_path(d, 2, kept) != smore::cuda::SpectralPath::dft) continue;
      rows_case(keeping<float>(kept, 37, d, 2), true);
      rows_case(keeping<double>(kept, 11, d, 1), false);
    }
    rows_case(keeping<float>(2, 19, d, 3), true);
    rows_case(keeping<double>(2, 9, d, 3, false), true);
    rows_case(keeping<float>(2, 19, d, 2, false), true);
  }
  const Problem<float> p = keeping<float>(7, 70, 77, 2);
  const Outcome<float> once = rows_case(p, true);
  harness::each_order([&] { CHECK(once.y == rows_forward(p, true) && once.grad == rows_backward(p, true)); });
  CHECK(once.y == rows_forward(p, true, 1) && once.grad == rows_backward(p, true, 1));
}

TEST(between_transforms) {
  for (const int64_t d : {1, 12, 65, 100}) {
    for (const int64_t kept : {int64_t{1}, d / 3 + 1}) {
      bins_case(keeping<float>(kept, 19, d, 2), true);
      bins_case(keeping<double>(kept, 19, d, 1, false), true);
      bins_case(keeping<float>(kept, 19, d, 3, false), true);
    }
  }
  bins_case(keeping<float>(5, 9, 12, 5, false), true);
  bins_case(keeping<double>(3, 4, 9, smore::cuda::kSpectralPointers + 2, false), true);
}

TEST(nan_and_infinity_stay_in_their_row) {
  for (const int64_t d : {33, 77}) {
    Problem<float> p = keeping<float>(5, 40, d, 1);
    p.x[0][2 * d + 3] = std::numeric_limits<float>::quiet_NaN();
    p.x[0][19 * d] = std::numeric_limits<float>::infinity();
    const auto y = rows_forward(p, false);
    for (int64_t i = 0; i < p.n * d; ++i) CHECK(std::isfinite(y[0][i]) == (i / d != 2 && i / d != 19));
  }
}

TEST(bins_that_are_not_kept_may_hold_anything) {
  for (const int64_t d : {24, 33, 64, 77}) {
    Problem<float> p = keeping<float>(5, 9, d, 2);
    const auto y = rows_forward(p, true);
    const auto grad = rows_backward(p, true);
    for (auto* w : {&p.weight[0], &p.weight[1], &p.fusion}) {
      std::fill(w->begin() + 10, w->end(), std::numeric_limits<float>::quiet_NaN());
    }
    CHECK(rows_forward(p, true) == y && rows_backward(p, true) == grad);
  }
}
