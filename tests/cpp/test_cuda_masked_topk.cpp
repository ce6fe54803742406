// The CUDA side of masked_topk against the CPU kernel, bit for bit on scores that are whole numbers, and on NaN and
// infinities.
#include "cuda_harness.h"
#include "ranking/cuda/masked_topk_kernel.h"
#include "topk_problem.h"

namespace {

using smore::cuda::TopkShape;

using harness::Problem;
using harness::Ranked;

// As the binding does it.
template <typename T, typename I>
Ranked<T> rank_cuda(const Problem<T, I>& p, const TopkShape& shape) {
  const int64_t lists = shape.users * shape.splits;
  harness::Array<T> score(lists * shape.capacity), bar(lists), tile(shape.users * shape.stride());
  harness::Array<uint32_t> index(lists * shape.capacity);
  harness::Array<int64_t> count(lists);
  const harness::Array<I> rowptr(p.rowptr), col(p.col);
  harness::Array<T> out(p.n_users * p.k);
  harness::Array<int64_t> out_index(p.n_users * p.k);
  const auto product = [&](int64_t user, int64_t users, int64_t item, int64_t items, T* to, int64_t stride) {
    for (int64_t u = 0; u < users; ++u) {
      for (int64_t i = 0; i < items; ++i) {
        T sum = 0;
        for (int64_t e = 0; e < p.d; ++e) sum += p.users[(user + u) * p.d + e] * p.items[(item + i) * p.d + e];
        to[u * stride + i] = sum;
      }
    }
  };
  smore::cuda::topk_search(shape, p.n_users, p.n_items,
                           smore::cuda::TopkLists<T>{p.k, shape.capacity, shape.splits, score.data(), index.data(),
                                                     count.data(), bar.data()},
                           smore::cuda::TopkSeen<I>{p.rowptr.empty() ? nullptr : rowptr.data(), col.data(), col.size()},
                           tile.data(), out.data(), out_index.data(), product, nullptr);
  return {out.values(), out_index.values()};
}

template <typename T, typename I>
void compare(const Problem<T, I>& p, const std::vector<TopkShape>& shapes) {
  const Ranked<T> wanted = harness::rank(p, 1);
  for (const TopkShape& shape : shapes) {
    harness::each_order([&] {
      const Ranked<T> got = rank_cuda(p, shape);
      CHECK(harness::same_bits(got.score, wanted.score));
      CHECK(got.index == wanted.index);
    });
  }
}

// Scores are whole numbers: exact in any order of summation, and with many ties. User 0 has seen nothing, user 1
// everything, user 2 all but two items.
template <typename T, typename I>
Problem<T, I> whole_numbers(int64_t n_users, int64_t n_items, int64_t d, int64_t k, int64_t range) {
  Problem<T, I> p{n_users, n_items, d, k, {}, {}, {0}, {}};
  for (const int64_t v : harness::random_ids(n_users * d, 2 * range + 1, 1))
    p.users.push_back(static_cast<T>(v - range));
  for (const int64_t v : harness::random_ids(n_items * d, 2 * range + 1, 2))
    p.items.push_back(static_cast<T>(v - range));
  for (int64_t u = 0; u < n_users; ++u) {
    std::vector<int64_t> seen = harness::random_ids(u == 0 ? 0 : u % 9 * 5, n_items, static_cast<unsigned>(u));
    if (u == 1 || u == 2) {
      seen.clear();
      for (int64_t i = 0; i < n_items; ++i) {
        if (u == 1 || (i != n_items / 2 && i != n_items - 1)) seen.push_back(i);
      }
    }
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const int64_t i : seen) p.col.push_back(static_cast<I>(i));
    p.rowptr.push_back(static_cast<I>(p.col.size()));
  }
  return p;
}

}  // namespace

TEST(blocks_tiles_and_splits) {
  const auto p = whole_numbers<float, int32_t>(11, 203, 5, 7, 30);
  compare(p, {smore::cuda::topk_shape<float>(11, 203, 7),
              {4, 50, 1, 12},      // ragged blocks, lists that fill
              {11, 203, 3, 16}});  // several lists a user
  compare(whole_numbers<double, int64_t>(5, 90, 3, 4, 30), {{3, 40, 2, 6}});
  compare(whole_numbers<float, int64_t>(3, 64, 3, 1, 30), {{3, 64, 1, 3}});
  compare(whole_numbers<double, int32_t>(1, 1, 1, 1, 3), {smore::cuda::topk_shape<double>(1, 1, 1)});
}

TEST(ties_come_in_the_order_of_their_index) {
  compare(whole_numbers<float, int32_t>(5, 150, 2, 9, 1), {{5, 150, 1, 14}, {2, 40, 2, 10}});
  compare(whole_numbers<double, int32_t>(3, 150, 1, 9, 0), {{3, 64, 1, 11}});  // all scores are 0
}

TEST(more_scores_than_a_warp_looks_at_at_once) {
  Problem<float, int32_t> p = whole_numbers<float, int32_t>(3, 1300, 2, 5, 100);
  compare(p, {{3, 1300, 1, 140}});  // lists beyond what registers hold
  p.rowptr.clear();
  p.col.clear();
  compare(p, {{3, 600, 1, 20}});
}

TEST(all_items_ranked) {
  for (const int64_t n : {33, 200}) {
    Problem<float, int32_t> p = whole_numbers<float, int32_t>(4, n, 3, n, 4);
    compare(p, {smore::cuda::topk_shape<float>(4, n, n)});
    p.rowptr.clear();
    p.col.clear();
    compare(p, {smore::cuda::topk_shape<float>(4, n, n), {2, 20, 1, n}});
  }
}

TEST(lists_that_are_sorted_in_global_memory) {
  compare(whole_numbers<float, int32_t>(3, 130, 2, 60, 4), {{3, 130, 1, 2100}});
  compare(whole_numbers<double, int32_t>(3, 60, 2, 20, 4), {{3, 60, 1, 2100}});
}

TEST(scores_that_are_not_finite) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Problem<float, int32_t> p{3, 70, 1, 70, {1, -1, 0}, std::vector<float>(70, 0.5f), {}, {}};
  for (const int64_t i : {3, 40, 69}) p.items[i] = nan;
  for (const int64_t i : {5, 41}) p.items[i] = inf;
  for (const int64_t i : {6, 42}) p.items[i] = -inf;
  for (const int64_t i : {7, 43}) p.items[i] = 0.0f;  // -0 for user 1
  for (const int64_t i : {8, 44}) p.items[i] = -0.0f;
  const TopkShape one_tile = smore::cuda::topk_shape<float>(3, 70, 70);
  compare(p, {one_tile, {2, 32, 1, 70}});
  p.k = 4;
  compare(p, {{3, 70, 1, 6}});
  Problem<double, int64_t> q{2,  40, 1, 3, {1, -1}, std::vector<double>(40, std::numeric_limits<double>::infinity()),
                             {}, {}};
  q.items[1] = std::numeric_limits<double>::quiet_NaN();
  compare(q, {{2, 40, 1, 5}});
}

// In a capture nothing is checked: lists that are wrong mask other items, and touch no other memory.
TEST(unchecked_lists_stay_within_their_memory) {
  for (const int64_t wrong :
       {int64_t{-1}, int64_t{1000}, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    Problem<float, int64_t> p = whole_numbers<float, int64_t>(5, 70, 3, 6, 30), q = p;
    for (size_t u = 1; u < p.rowptr.size(); u += 2) p.rowptr[u] = wrong;
    for (size_t e = 0; e < q.col.size(); e += 3) q.col[e] = wrong;
    for (const auto* problem : {&p, &q}) {
      const Ranked<float> got = rank_cuda(*problem, {2, 32, 1, 12});
      for (const int64_t item : got.index) CHECK(item >= -1 && item < 70);
    }
  }
}

TEST(shapes_fit_their_scratch_memory) {
  for (const int64_t users : {1, 3, 256, 4096, 192403}) {
    for (const int64_t items : {1, 7050, 23033, 63001, 1000000}) {
      for (const int64_t k : {1, 50, 64, 65, 1000, 60000}) {
        if (k > items) continue;
        for (const bool wide : {false, true}) {
          const TopkShape s =
              wide ? smore::cuda::topk_shape<double>(users, items, k) : smore::cuda::topk_shape<float>(users, items, k);
          const int64_t element = wide ? 8 : 4;
          CHECK(s.users >= 1 && s.users <= users && s.items >= 1 && s.items <= items && s.splits >= 1);
          CHECK(s.capacity > k || s.capacity == items);
          CHECK(s.splits == 1 || s.splits * s.capacity <= 2048);
          CHECK(s.users * s.stride() * element <= smore::cuda::kTopkTileBytes);
          CHECK(s.users * s.splits * s.capacity * (element + 4) <= smore::cuda::kTopkListBytes);
        }
      }
    }
  }
}
