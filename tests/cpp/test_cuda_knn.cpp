// The CUDA side of knn against the CPU kernels, bit for bit: ties, duplicates, zero rows, any tiles.
#include "cuda_harness.h"
#include "knn_problem.h"
#include "neighbours/cuda/knn_kernel.h"
#include "neighbours/cuda/row_squares_kernel.h"

namespace {

using harness::KnnProblem;
using harness::Neighbours;
using smore::KnnSelf;
using smore::cuda::KnnShape;

// As the binding does it. The products are summed from the last element to the first, unlike the CPU's. `offset`: where
// in its memory the first table begins.
template <typename T>
Neighbours<T> search_cuda(const KnnProblem<T>& problem, const KnnShape& shape, int64_t offset = 0) {
  const int64_t rows = problem.rows(), n = problem.n(), d = problem.d, k = problem.listed();
  const bool own = problem.self != KnnSelf::none;
  std::vector<T> shifted(offset);
  shifted.insert(shifted.end(), problem.queries.begin(), problem.queries.end());
  const harness::Array<T> queries(shifted), base(problem.base);
  const T* x = queries.data() + offset;
  const T* y = own ? x : base.data();
  harness::Array<double> query_square(rows), base_square(n);
  smore::cuda::row_squares<T>(x, rows, d, query_square.data(), nullptr, nullptr);
  if (!own) smore::cuda::row_squares<T>(y, n, d, base_square.data(), nullptr, nullptr);
  const int64_t run = own ? rows : shape.rows, capacity = smore::knn_capacity(k);
  harness::Array<T> score(run * capacity), bar(run), left(shape.left_elements()), right(shape.right_elements()),
      tile(shape.tile_elements()), similarity(rows * problem.k);
  harness::Array<uint32_t> index(run * capacity);
  harness::Array<int64_t> count(run), found(rows * problem.k);
  const smore::cuda::KnnLists<T> lists{
      k, capacity, smore::knn_margin<T>(d), score.data(), index.data(), count.data(), bar.data()};
  const smore::cuda::KnnScratch<T> scratch{left.data(), right.data(), tile.data()};
  const auto product = [](const T* a, int64_t some, const T* b, int64_t columns, int64_t width, T* out, int64_t stride,
                          bool add) {
    for (int64_t r = 0; r < some; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        T sum = add ? out[r * stride + c] : T(0);
        for (int64_t e = width - 1; e >= 0; --e) sum += a[r * width + e] * b[c * width + e];
        out[r * stride + c] = sum;
      }
    }
  };
  for (int64_t i = 0; i < rows; i += run) {
    const int64_t some = std::min(run, rows - i);
    const smore::cuda::KnnTables<T> tables{
        x + i * d, query_square.data() + i, y, own ? query_square.data() : base_square.data(), n, d, problem.self};
    smore::cuda::knn_begin(lists, some, nullptr);
    if (own) {
      smore::cuda::knn_collect(lists, tables, shape, scratch, product, nullptr);
    } else {
      smore::cuda::knn_collect_strip(lists, tables, some, shape, scratch, product, nullptr);
    }
    smore::cuda::knn_finish(lists, tables, some, similarity.data() + i * problem.k, found.data() + i * problem.k,
                            nullptr);
  }
  return {similarity.values(), found.values()};
}

template <typename T>
void compare_problem(const KnnProblem<T>& problem, const KnnShape& shape, int64_t offset = 0) {
  const Neighbours<T> wanted = harness::search(problem, std::max(problem.rows(), problem.n()), 1);
  const Neighbours<T> got = search_cuda(problem, shape, offset);
  CHECK(harness::same_bits(got.similarity, wanted.similarity));
  CHECK(got.index == wanted.index);
}

template <typename T>
void compare_one(const std::vector<T>& x, int64_t n, int64_t d, int64_t k, const KnnShape& shape) {
  compare_problem(KnnProblem<T>{x, {}, d, k}, shape);
  if (k < n && n <= 60) compare_problem(KnnProblem<T>{x, {}, d, k, KnnSelf::left_out}, shape);
}

template <typename T>
void compare(const std::vector<T>& x, int64_t n, int64_t d, int64_t k, const KnnShape& shape) {
  harness::each_order([&] { compare_one(x, n, d, k, shape); });
}

template <typename T>
void compare_in_base(const std::vector<T>& queries, const std::vector<T>& base, int64_t d, int64_t k,
                     const KnnShape& shape) {
  compare_problem(KnnProblem<T>{queries, base, d, k, KnnSelf::none}, shape);
}

template <typename T>
std::vector<T> repeated(int64_t n, int64_t d, int64_t kinds) {
  const std::vector<T> some = harness::random_values<T>(kinds * d, 7);
  std::vector<T> x;
  for (int64_t i = 0; i < n * d; ++i) x.push_back(some[(i / d * 5) % kinds * d + i % d]);
  return x;
}

}  // namespace

TEST(random_rows) {
  const KnnShape odd{7, 12, 5};  // strips, ragged tiles, panels
  for (const int64_t k : {1, 40}) compare_one(harness::random_values<float>(40 * 19, 1), 40, 19, k, odd);
  compare(harness::random_values<float>(40 * 19, 1), 40, 19, 5, odd);
  compare_one(harness::random_values<double>(30 * 19, 2), 30, 19, 3, odd);
  compare_one(harness::random_values<float>(40 * 19, 1), 40, 19, 5, {40, 40, 19});
  compare_one(harness::random_values<float>(45 * 20, 3), 45, 20, 6, {16, 40, 8});  // rows aligned to 16 bytes
  compare_one(harness::random_values<double>(45 * 20, 4), 45, 20, 6, {16, 40, 8});
  compare_one(harness::random_values<float>(40, 5), 40, 1, 3, {12, 24, 1});  // every cosine is 1 or -1
  compare_one(harness::random_values<float>(1 * 3, 6), 1, 3, 1, smore::cuda::knn_shape_within<float>(1, 3, 1));
}

TEST(lists_fill_long_before_the_last_tile) {
  compare_one(harness::random_values<float>(110 * 5, 18), 110, 5, 1, {12, 28, 5});
  compare_one(harness::random_values<double>(110 * 5, 19), 110, 5, 3, {12, 28, 5});
}

TEST(columns_longer_than_what_shared_memory_holds_at_once) {
  compare_one(harness::random_values<float>(145 * 4, 8), 145, 4, 2, {133, 148, 4});
  compare_one(harness::random_values<double>(140 * 3, 9), 140, 3, 1, {133, 140, 3});
}

TEST(every_row_is_a_neighbour) {
  compare(harness::random_values<float>(30 * 6, 10), 30, 6, 30, {8, 16, 6});
  compare_one(harness::random_values<double>(30 * 6, 10), 30, 6, 30, {8, 16, 6});
}

TEST(lists_beyond_registers_and_shared_memory) {
  emulation::set_order(emulation::Order::shuffled);
  compare_one(harness::random_values<float>(134 * 2, 11), 134, 2, 130, {134, 136, 2});
  emulation::set_order(emulation::Order::forward);
}

TEST(more_ties_than_a_list_holds) {
  compare(std::vector<float>(34 * 5, 0.5f), 34, 5, 4, {16, 24, 5});
  compare_one(std::vector<double>(40 * 3, 0.5), 40, 3, 10, {40, 40, 3});
  compare_one(repeated<float>(56, 8, 2), 56, 8, 2, {32, 56, 8});   // 28 of each kind
  compare_one(repeated<float>(60, 8, 20), 60, 8, 9, {32, 64, 8});  // 3 of each kind
}

TEST(zero_rows_have_similarity_zero) {
  std::vector<float> x = harness::random_values<float>(40 * 6, 13);
  for (const int64_t row : {4, 5, 6, 39}) std::fill(x.begin() + row * 6, x.begin() + row * 6 + 6, 0.0f);
  compare(x, 40, 6, 3, {20, 40, 4});
  compare_one(x, 40, 6, 40, {20, 40, 4});
  compare_one(std::vector<float>(40 * 2), 40, 2, 40, {40, 40, 2});
}

TEST(rows_without_columns_are_zero_rows) {
  harness::Array<double> square(std::vector<double>(3));
  harness::Array<float> similarity(3 * 2);
  harness::Array<int64_t> index(3 * 2);
  const smore::cuda::KnnTables<float> tables{nullptr, square.data(), nullptr, square.data(), 3, 0, KnnSelf::first};
  smore::cuda::knn_finish(smore::cuda::KnnLists<float>{2, 26, 0, nullptr, nullptr, nullptr, nullptr}, tables, 3,
                          similarity.data(), index.data(), nullptr);
  CHECK(similarity.values() == std::vector<float>(6));
  CHECK(index.values() == (std::vector<int64_t>{0, 1, 1, 0, 2, 0}));
}

TEST(neighbours_in_a_base) {
  const std::vector<float> queries = harness::random_values<float>(21 * 20, 31);
  std::vector<float> base = harness::random_values<float>(50 * 20, 32);
  std::copy(queries.begin(), queries.begin() + 20, base.begin() + 7 * 20);  // one of the queries, twice
  std::copy(queries.begin(), queries.begin() + 20, base.begin() + 3 * 20);
  std::fill(base.begin() + 30 * 20, base.begin() + 31 * 20, 0.0f);
  harness::each_order([&] {
    for (const int64_t k : {1, 6, 50}) compare_in_base(queries, base, 20, k, {8, 16, 8});
  });
  compare_in_base(base, queries, 20, 4, {50, 24, 20});
  compare_in_base(base, base, 20, 3, {16, 52, 20});
  std::vector<float> with_zero = queries;
  std::fill(with_zero.begin() + 4 * 20, with_zero.begin() + 5 * 20, 0.0f);
  compare_in_base(with_zero, base, 20, 5, {21, 52, 20});
  compare_in_base(harness::random_values<double>(9 * 7, 33), harness::random_values<double>(40 * 7, 34), 7, 4,
                  {4, 12, 3});
}

TEST(more_ties_in_a_base_than_a_list_holds) {
  const std::vector<float> queries = harness::random_values<float>(5 * 4, 35);
  compare_in_base(queries, std::vector<float>(60 * 4, 0.5f), 4, 3, {5, 60, 4});
  compare_in_base(std::vector<double>(7 * 4, 2.0), std::vector<double>(60 * 4, 0.5), 4, 3, {4, 28, 4});
}

TEST(rows_of_any_magnitude) {
  std::vector<float> x = harness::random_values<float>(48 * 9, 14);
  for (int64_t i = 0; i < 48 * 9; ++i) x[i] *= i / 9 % 3 == 0 ? 1e30f : i / 9 % 3 == 1 ? 1e-30f : 1.0f;
  compare_one(x, 48, 9, 6, {16, 24, 9});
  std::vector<double> y = harness::random_values<double>(48 * 9, 15);
  for (int64_t i = 0; i < 48 * 9; ++i) y[i] *= i / 9 % 2 == 0 ? 1e-150 : 1e150;
  compare_one(y, 48, 9, 6, {16, 24, 9});
}

TEST(features_need_not_be_aligned) {
  const std::vector<float> x = harness::random_values<float>(30 * 8, 16);
  compare_problem(KnnProblem<float>{x, {}, 8, 5}, {16, 16, 4}, 1);
  compare_problem(KnnProblem<float>{x, x, 8, 5, KnnSelf::none}, {16, 16, 4}, 1);
}

TEST(features_that_are_not_finite_are_reported) {
  std::vector<float> x = harness::random_values<float>(135 * 4, 17);
  harness::Array<double> square(135);
  harness::Array<int> flag(1);
  const auto run = [&] {
    smore::cuda::row_squares(harness::Array<float>(x).data(), 135, 4, square.data(), flag.data(), nullptr);
  };
  run();
  CHECK(flag[0] == 0);
  x[134 * 4 + 1] = std::numeric_limits<float>::quiet_NaN();
  x[131 * 4 + 3] = std::numeric_limits<float>::infinity();
  run();
  CHECK(flag[0] == std::numeric_limits<int>::max() - 131);
}

TEST(features_that_are_not_finite_end_a_search_all_the_same) {
  std::vector<float> x = harness::random_values<float>(135 * 4, 17);
  x[134 * 4 + 1] = std::numeric_limits<float>::quiet_NaN();
  x[131 * 4 + 3] = std::numeric_limits<float>::infinity();
  search_cuda(KnnProblem<float>{x, {}, 4, 2}, {135, 136, 4});
}

TEST(tiles_cover_every_pair_once) {
  for (const int64_t n : {1, 5, 64, 100, 129, 1000}) {
    for (const KnnShape& shape : {KnnShape{7, 12, 1}, KnnShape{64, 256, 1}, KnnShape{n, (n + 3) / 4 * 4, 1}}) {
      std::vector<int> met(n * n, 0);
      smore::cuda::for_each_knn_tile(n, shape, [&](const smore::cuda::KnnTile& t) {
        CHECK(t.rows * t.stride <= shape.tile_elements() && t.columns <= t.stride && t.rows > 0 && t.columns > 0);
        for (int64_t r = t.row; r < t.row + t.rows; ++r) {
          for (int64_t c = t.column; c < t.column + t.columns; ++c) {
            ++met[r * n + c];
            if (c >= t.row + t.rows) ++met[c * n + r];  // the column's offer
          }
        }
      });
      CHECK(std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }));
    }
  }
}

TEST(strips_cover_every_pair_once) {
  for (const int64_t n : {1, 5, 64, 129}) {
    for (const KnnShape& shape : {KnnShape{7, 12, 1}, KnnShape{64, 256, 1}}) {
      std::vector<int> met(n, 0);
      smore::cuda::for_each_strip_tile(5, n, shape, [&](const smore::cuda::KnnTile& t) {
        CHECK(t.row == 0 && t.rows == 5 && t.columns <= t.stride && t.stride <= shape.columns && t.columns > 0);
        for (int64_t c = t.column; c < t.column + t.columns; ++c) ++met[c];
      });
      CHECK(std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }));
    }
  }
}

TEST(scratch_memory_is_bounded) {
  const auto tiles = [](const KnnShape& shape, int64_t element) {
    return (shape.tile_elements() + shape.left_elements() + shape.right_elements()) * element;
  };
  for (const int64_t n : {1, 1000, 7050, 23033, 63001}) {
    for (const int64_t k : {1, 10, 40}) {
      if (k > n) continue;
      for (const int64_t d : {1, 64, 384, 4096, 100000}) {
        using namespace smore::cuda;
        CHECK(knn_list_bytes<float>(n, k) + 8 * n + tiles(knn_shape_within<float>(n, d, k), 4) <= 64'000'000);
        CHECK(knn_list_bytes<double>(n, k) + 8 * n + tiles(knn_shape_within<double>(n, d, k), 8) <= 64'000'000);
        for (const int64_t queries : {1, 1000, 200000}) {
          const KnnShape single = knn_shape_among<float>(queries, n, d, k),
                         twice = knn_shape_among<double>(queries, n, d, k);
          const int64_t both = 8 * (queries + n);
          CHECK(knn_list_bytes<float>(single.rows, k) + both + tiles(single, 4) <= 64'000'000);
          CHECK(knn_list_bytes<double>(twice.rows, k) + both + tiles(twice, 8) <= 64'000'000);
        }
      }
    }
  }
}
