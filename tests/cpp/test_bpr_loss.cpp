// BPR scores and gradients against their definition in double, with repeated rows, for 1 and 3 threads.
#include "losses/cpu/bpr_loss_kernel.h"

#include "harness.h"

namespace {

template <typename T>
void compare(int64_t n_users, int64_t n_items, int64_t d, int64_t size) {
  const auto user_rows = harness::random_values<T>(n_users * d, 1),
             item_rows = harness::random_values<T>(n_items * d, 2);
  const auto users = harness::random_ids(size, n_users, 3), positives = harness::random_ids(size, n_items, 4),
             negatives = harness::random_ids(size, n_items, 5);
  const smore::BprBatch<T> batch{
      user_rows.data(), item_rows.data(), users.data(), positives.data(), negatives.data(), size, d};
  constexpr double kBpr = 0.25, kL2 = 0.125;
  const auto run = [&](int threads) {
    std::vector<std::vector<T>> out{std::vector<T>(size), std::vector<T>(size), std::vector<T>(n_users * d),
                                    std::vector<T>(n_items * d)};
    harness::run_ranges(size, threads, [&](int64_t begin, int64_t end) {
      smore::bpr_scores(batch, out[0].data(), out[1].data(), begin, end);
    });
    harness::run_ranges(n_users, threads, [&](int64_t begin, int64_t end) {
      smore::bpr_user_gradient(batch, out[0].data(), smore::BprGradient{kBpr, kL2, kL2, kL2, 0}, out[2].data(), begin,
                               end);
    });
    harness::run_ranges(n_items, threads, [&](int64_t begin, int64_t end) {
      smore::bpr_item_gradient(batch, out[0].data(), smore::BprGradient{kBpr, kL2, kL2, kL2, 0}, out[3].data(), begin,
                               end);
    });
    return out;
  };
  const auto got = run(1);
  CHECK(got == run(3));

  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-12;
  std::vector<double> grad_user(n_users * d), grad_item(n_items * d);
  for (int64_t b = 0; b < size; ++b) {
    double margin = 0, square = 0;
    const T *u = &user_rows[users[b] * d], *p = &item_rows[positives[b] * d], *n = &item_rows[negatives[b] * d];
    for (int64_t e = 0; e < d; ++e) {
      margin += double(u[e]) * (double(p[e]) - double(n[e]));
      square += double(u[e]) * double(u[e]) + double(p[e]) * double(p[e]) + double(n[e]) * double(n[e]);
    }
    CHECK_NEAR(got[0][b], margin, tolerance);
    CHECK_NEAR(got[1][b], square, tolerance);
    const double slope = -kBpr / (1 + std::exp(margin));  // d softplus(-margin) / d margin
    for (int64_t e = 0; e < d; ++e) {
      grad_user[users[b] * d + e] += slope * (double(p[e]) - double(n[e])) + kL2 * double(u[e]);
      grad_item[positives[b] * d + e] += slope * double(u[e]) + kL2 * double(p[e]);
      grad_item[negatives[b] * d + e] += -slope * double(u[e]) + kL2 * double(n[e]);
    }
  }
  for (int64_t i = 0; i < n_users * d; ++i) CHECK_NEAR(got[2][i], grad_user[i], tolerance);
  for (int64_t i = 0; i < n_items * d; ++i) CHECK_NEAR(got[3][i], grad_item[i], tolerance);
}

}  // namespace

TEST(scores_and_gradients) {
  for (const int64_t d : {1, 7, 16, 64, 65}) {
    compare<float>(11, 9, d, 40);
    compare<double>(11, 9, d, 40);
  }
}

TEST(softplus_does_not_overflow) {
  CHECK_NEAR(smore::bpr_softplus(0), std::log(2.0), 1e-15);
  CHECK_NEAR(smore::bpr_softplus(-1e6), 1e6, 1e-6);
  CHECK_NEAR(smore::bpr_softplus(1e6), 0, 1e-300);
}

TEST(gamma_is_a_continuous_change_of_the_loss) {
  for (const double margin : {-800.0, -30.0, -1.0, 0.0, 2.0, 30.0, 800.0}) {
    const double gamma = 0.2, h = 1e-5;
    CHECK_NEAR(smore::bpr_gamma_loss(margin, gamma), -std::log(gamma + 1 / (1 + std::exp(-margin))), 1e-15);
    const double above = smore::bpr_gamma_loss(margin + h, gamma), below = smore::bpr_gamma_loss(margin - h, gamma);
    CHECK_NEAR(smore::bpr_gamma_slope(margin, gamma), (above - below) / (2 * h), 1e-9);
    CHECK_NEAR(smore::bpr_gamma_loss(std::max(margin, -30.0), 1e-300), smore::bpr_softplus(std::max(margin, -30.0)),
               1e-12);
  }
}
