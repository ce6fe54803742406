// The spectral CUDA kernels against the CPU ones and against transforms by definition.
#include "cuda_spectral.h"

namespace {

using namespace spectral;

constexpr int64_t kSmallWidths[] = {7, 24, 45, 63};  // by definition

std::vector<int64_t> chip_widths() {
  std::vector<int64_t> widths(std::begin(kWidths), std::end(kWidths));
  widths.insert(widths.end(), std::begin(kSmallWidths), std::end(kSmallWidths));
  return widths;
}

}  // namespace

TEST(the_rule_that_chooses_the_way) {
  using smore::cuda::SpectralPath;
  const auto path = [](int64_t d, int64_t m) { return smore::cuda::spectral_path(d, m, d / 2 + 1); };
  for (const int64_t d : kWidths) CHECK(path(d, 3) == SpectralPath::fused);
  CHECK(path(64, 4) == SpectralPath::cufft);
  for (const int64_t d : {2, 3, 4, 8, 15, 17, 31, 33, 48, 63}) {
    CHECK(path(d, 3) == SpectralPath::dft);
    CHECK(path(d, 4) == SpectralPath::cufft);
  }
  for (const int64_t d : {1, 65, 100, 1024}) CHECK(path(d, 1) == SpectralPath::cufft);
  const auto few = smore::cuda::spectral_path;
  CHECK(few(64, 3, 4) == SpectralPath::fused && few(65, 3, 32) == SpectralPath::dft);
  CHECK(few(100, 2, 33) == SpectralPath::cufft && few(100, 4, 8) == SpectralPath::cufft);
  CHECK(few(480, 1, 8) == SpectralPath::dft && few(481, 1, 8) == SpectralPath::cufft);
  CHECK(few(481, 1, 9) == SpectralPath::dft && few(2016, 1, 32) == SpectralPath::dft);
  CHECK(few(1, 1, 1) == SpectralPath::cufft);
}

TEST(on_the_chip_every_width) {
  for (const int64_t d : kWidths) {
    rows_case<float>(128 * 16 / d + 3, d, 2, true);  // more than a block of the forward kernel has rows
    rows_case<float>(3, d, 1, false);
    rows_case<float>(5, d, 1, true);
    rows_case<float>(64 * 16 / d + 1, d, 3, true);  // ... of the backward kernel
    rows_case<double>(64 * 16 / d + 1, d, 2, true);
    rows_case<double>(3, d, 1, false);
    rows_case<double>(32 * 16 / d + 1, d, 3, true);
  }
}

TEST(on_the_chip_every_small_width) {
  for (int64_t d = 2; d < 64; ++d) {
    if (d == 16 || d == 32) continue;
    rows_case<float>(3, d, 1 + d % 3, true);
    rows_case<double>(3, d, 1 + d / 3 % 3, true);
  }
  for (const int64_t d : {2, 3, 7, 15, 24, 31, 45, 48, 63}) {
    const int64_t block = d < 16 ? 256 : d < 32 ? 128 : 64;  // rows of a block of the forward kernel in float
    rows_case<float>(block + 3, d, 2, true);
    rows_case<float>(block / 2, d, 3, true);
    rows_case<float>(block / 2 + 1, d, 1, false);
    rows_case<double>(block / 2 + 1, d, 2, true);
    rows_case<double>(block / 4 + 5, d, 3, true);
    rows_case<double>(1, d, 1, false);
  }
}

TEST(on_the_chip_in_every_order_and_off_alignment) {
  for (const int64_t d : {16, 32, 64, 256, 7, 24, 45, 63}) {
    const Problem<float> p(64 * 16 / d + 3, d, 2);
    const Outcome<float> once = rows_case<float>(p.n, d, 2, true);
    harness::each_order([&] { CHECK(once.y == rows_forward(p, true) && once.grad == rows_backward(p, true)); });
    CHECK(once.y == rows_forward(p, true, 1) && once.grad == rows_backward(p, true, 1));
  }
}

TEST(between_transforms_any_width_any_number_of_arrays) {
  for (const int64_t d : {1, 2, 3, 12, 17, 63, 64, 100}) {
    bins_case<float>(19, d, 2, true);
    bins_case<double>(5, d, 1, false);
  }
  bins_case<double>(40, 12, 1, true);
  bins_case<float>(21, 7, 3, true);
  bins_case<double>(3, 9, smore::cuda::kSpectralPointers + 2, true);
  bins_case<float>(2, 601, 2, true);  // more bins than a block has threads
  for (const int64_t m : {2, 5}) {
    const Problem<float> p(700, 4, m);  // several blocks
    const Outcome<float> once = bins_case<float>(p.n, p.d, m, true);
    harness::each_order([&] { CHECK(once.y == bins_forward(p, true) && once.grad == bins_backward(p, true)); });
  }
}

TEST(no_rows) {
  for (const int64_t d : {7, 64, 100}) {
    const Problem<float> p(0, d, 2);
    const bool rows = d != 100;
    CHECK((rows ? rows_forward(p, true) : bins_forward(p, true)) == std::vector<std::vector<float>>(3));
    const Result<float> grad = rows ? rows_backward(p, true) : bins_backward(p, true);
    CHECK(grad.x == std::vector<std::vector<float>>(2));
    CHECK(grad.weight == std::vector<std::vector<float>>(3, std::vector<float>((d / 2 + 1) * 2)));
  }
}

// As many as make the blocks of both kernels take a second turn: the same few rows over and over.
TEST(more_rows_than_a_grid_has_threads) {
  const auto repeated = []<typename T>(const Problem<T>& few, int64_t times) {
    Problem<T> many(0, few.d, few.m);
    many.n = few.n * times;
    for (int64_t i = 0; i < times; ++i) {
      many.x[0].insert(many.x[0].end(), few.x[0].begin(), few.x[0].end());
      many.grad_y[0].insert(many.grad_y[0].end(), few.grad_y[0].begin(), few.grad_y[0].end());
    }
    return many;
  };
  const auto check_parts = []<typename T>(const std::vector<T>& all, const std::vector<T>& part) {
    for (size_t i = 0; i < all.size(); i += part.size()) {
      CHECK(std::memcmp(all.data() + i, part.data(), part.size() * sizeof(T)) == 0);
    }
  };
  // Rows of the blocks that are resident at a time: forward and backward kernel, then the forward kernel in double,
  // where the loop is another one, which loads no rows ahead.
  constexpr int64_t kForward = 132 * 5 * 128, kBackward = 132 * 8 * 64, kForwardDouble = 132 * 6 * 64, kFew = 1001;
  const Problem<float> few(kFew, 16, 1);
  check_parts(rows_forward(repeated(few, kForward / kFew + 1), false)[0], rows_forward(few, false)[0]);
  constexpr int64_t kTimes = kBackward / kFew + 1;
  const Result<float> grad = rows_backward(repeated(few, kTimes), false), grad_few = rows_backward(few, false);
  check_parts(grad.x[0], grad_few.x[0]);
  for (size_t i = 0; i < grad.weight[0].size(); ++i) {
    CHECK_NEAR(grad.weight[0][i], kTimes * grad_few.weight[0][i], 1e-5 * kTimes);
  }
  const Problem<double> few_double(kFew, 16, 1);
  check_parts(rows_forward(repeated(few_double, kForwardDouble / kFew + 1), false)[0],
              rows_forward(few_double, false)[0]);
  // The kernels by definition, with 16 rows a warp; 101 of them move through the tiles.
  const Problem<float> small(101, 33, 1);
  check_parts(rows_forward(repeated(small, 132 * 4 * 64 / 101 + 1), false)[0], rows_forward(small, false)[0]);
  constexpr int64_t kSmallTimes = 132 * 6 * 32 / 101 + 1;
  const Result<float> sums = rows_backward(repeated(small, kSmallTimes), false), once = rows_backward(small, false);
  check_parts(sums.x[0], once.x[0]);
  for (size_t i = 0; i < sums.weight[0].size(); ++i) {
    CHECK_NEAR(sums.weight[0][i], kSmallTimes * once.weight[0][i], 1e-5 * kSmallTimes);
  }
}

TEST(rows_of_very_different_size_do_not_disturb_each_other) {
  for (const int64_t d : {16, 64, 128, 7, 24, 45, 63}) {
    Problem<float> p(40, d, 2);
    for (int64_t r = 0; r < p.n; ++r) {
      const double power = double(r * 17 % p.n) / double(p.n - 1) - 0.5;  // -1/2 .. 1/2
      for (int64_t i = r * d; i < (r + 1) * d; ++i) {
        p.x[0][i] *= static_cast<float>(std::pow(10.0, 12 * power));
        p.x[1][i] *= static_cast<float>(std::pow(10.0, -12 * power));
        p.grad_y[0][i] *= static_cast<float>(std::pow(10.0, 12 * power));
        p.grad_fused[i] *= static_cast<float>(std::pow(10.0, -12 * power));
      }
    }
    std::fill_n(p.x[0].begin() + 3 * d, d, 0.0f), std::fill_n(p.x[1].begin() + 8 * d, d, 0.0f);
    const Wanted<float> wanted(p, true);
    const auto y = rows_forward(p, true);
    compare(y, wanted.y, d, kTolerance<float>);
    compare(rows_backward(p, true).x, wanted.grad.x, d, kTolerance<float>);
    for (int64_t i = 0; i < d; ++i) {
      CHECK(y[0][3 * d + i] == 0 && y[2][3 * d + i] == 0 && y[1][8 * d + i] == 0 && y[2][8 * d + i] == 0);
    }
  }
}

TEST(imaginary_parts_of_the_first_and_the_middle_bin_count_for_nothing) {
  for (const int64_t d : chip_widths()) {
    Problem<float> p(3, d, 2), same(3, d, 2);
    for (auto* w : {&p.weight[0], &p.weight[1], &p.fusion}) {
      (*w)[1] = std::numeric_limits<float>::quiet_NaN();
      if (d % 2 == 0) (*w)[d + 1] = (*w)[1];
    }
    CHECK(rows_forward(p, true) == rows_forward(same, true) && rows_backward(p, true) == rows_backward(same, true));
  }
}

TEST(nan_and_infinity_stay_in_their_row) {
  for (const int64_t d : chip_widths()) {
    Problem<float> p(40, d, 1);
    p.x[0][2 * d + 3] = std::numeric_limits<float>::quiet_NaN();
    p.x[0][19 * d] = std::numeric_limits<float>::infinity();
    const auto y = rows_forward(p, false), grad = rows_backward(p, true).x;
    for (int64_t r = 0; r < p.n; ++r) {
      int64_t finite = 0, finite_grad = 0;
      for (int64_t i = r * d; i < (r + 1) * d; ++i) {
        finite += std::isfinite(y[0][i]) ? 1 : 0, finite_grad += std::isfinite(grad[0][i]) ? 1 : 0;
      }
      CHECK(r == 2 || r == 19 ? finite < d : finite == d);
      CHECK(finite_grad == d);  // the gradient of x does not depend on x where M = 1
    }
  }
}
