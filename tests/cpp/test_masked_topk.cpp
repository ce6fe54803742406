// The k best unseen items against a full sort, with ties, exhausted users and NaN, for 1 and 3 threads.
#include "ranking/cpu/masked_topk_kernel.h"

#include <limits>

#include "cpu/sorted_row.h"
#include "topk_problem.h"

namespace {

using harness::Problem;
using harness::rank;
using harness::Ranked;

template <typename T, typename I>
void compare(const Problem<T, I>& p) {
  const Ranked<T> got = rank(p, 1), got3 = rank(p, 3);
  CHECK(got.score == got3.score && got.index == got3.index);
  const Ranked<T> own = rank(p, 1, false);
  CHECK(own.score == got.score && own.index == got.index);
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-12;
  for (int64_t u = 0; u < p.n_users; ++u) {
    std::vector<double> left;
    const auto score = [&](int64_t i) {
      double dot = 0;
      for (int64_t e = 0; e < p.d; ++e) dot += double(p.users[u * p.d + e]) * double(p.items[i * p.d + e]);
      return dot;
    };
    const auto seen = [&](int64_t i) {
      return !p.rowptr.empty() && smore::contains(p.col.data() + p.rowptr[u], p.col.data() + p.rowptr[u + 1], i);
    };
    for (int64_t i = 0; i < p.n_items; ++i) {
      if (!seen(i)) left.push_back(score(i));
    }
    std::sort(left.begin(), left.end(), std::greater<>());
    for (int64_t r = 0; r < p.k; ++r) {
      const int64_t item = got.index[u * p.k + r];
      const T value = got.score[u * p.k + r];
      if (r >= static_cast<int64_t>(left.size())) {
        CHECK(item == -1 && value == -std::numeric_limits<T>::infinity());
        continue;
      }
      CHECK(item >= 0 && item < p.n_items && !seen(item));
      CHECK_NEAR(value, left[r], tolerance);
      CHECK_NEAR(value, score(item), tolerance);
      if (r == 0) continue;
      const T before = got.score[u * p.k + r - 1];
      CHECK(before > value || (before == value && got.index[u * p.k + r - 1] < item));
    }
  }
}

template <typename T, typename I>
Problem<T, I> random_problem(int64_t n_users, int64_t n_items, int64_t d, int64_t k) {
  Problem<T, I> p{
      n_users, n_items, d, k, harness::random_values<T>(n_users * d, 1), harness::random_values<T>(n_items * d, 2),
      {0},     {}};
  for (int64_t u = 0; u < n_users; ++u) {  // user 0 has seen nothing, user 1 everything
    std::vector<int64_t> seen = harness::random_ids(u == 0 ? 0 : u % 9, n_items, static_cast<unsigned>(u));
    if (u == 1) {
      seen.clear();
      for (int64_t i = 0; i < n_items; ++i) seen.push_back(i);
    }
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const int64_t i : seen) p.col.push_back(static_cast<I>(i));
    p.rowptr.push_back(static_cast<I>(p.col.size()));
  }
  return p;
}

}  // namespace

TEST(random_problems) {
  compare(random_problem<float, int32_t>(70, 101, 13, 10));
  compare(random_problem<double, int64_t>(70, 101, 13, 10));
  compare(random_problem<float, int64_t>(3, 20, 64, 20));
  compare(random_problem<float, int32_t>(130, 1000, 64, 50));
  compare(random_problem<float, int32_t>(2, 2200, 64, 5));  // more panels than are packed at once
  compare(random_problem<double, int32_t>(1, 1, 1, 1));
  Problem<float, int32_t> open = random_problem<float, int32_t>(5, 33, 7, 33);
  open.rowptr.clear();
  compare(open);
}

TEST(ties_come_in_the_order_of_their_index) {
  Problem<float, int32_t> p{2, 200, 2, 9, {1, 0, 0, 1}, {}, {}, {}};
  for (int i = 0; i < 200; ++i) p.items.insert(p.items.end(), {1.0f, static_cast<float>(i % 2)});
  const Ranked<float> got = rank(p, 1);
  for (int64_t r = 0; r < 9; ++r) CHECK(got.index[r] == r && got.index[9 + r] == 2 * r + 1);
}

TEST(nan_is_never_chosen) {
  Problem<float, int32_t> p{1, 40, 1, 40, {1}, std::vector<float>(40, 0.5f), {}, {}};
  p.items[3] = std::numeric_limits<float>::quiet_NaN();
  const Ranked<float> got = rank(p, 1);
  CHECK(std::find(got.index.begin(), got.index.end(), 3) == got.index.end());
  CHECK(got.index.back() == -1);
}
