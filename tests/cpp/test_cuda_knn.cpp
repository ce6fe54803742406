// The CUDA side of knn against the CPU kernels, bit for bit: ties, duplicates, zero rows, any tiles.
#include "cuda_harness.h"
#include "neighbours/cpu/knn_kernel.h"
#include "neighbours/cuda/knn_kernel.h"

namespace {

using smore::cuda::KnnShape;

template <typename T>
struct Neighbours {
  std::vector<T> similarity;
  std::vector<int64_t> index;
};

template <typename T>
Neighbours<T> search_cpu(const std::vector<T>& x, int64_t n, int64_t d, int64_t k) {
  std::vector<double> square(n);
  smore::knn_squares(x.data(), d, square.data(), 0, n);
  std::vector<T> unit(n * d), block(n * n);
  smore::knn_unit_rows(x.data(), d, square.data(), unit.data(), 0, n);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t e = 0; e < d; ++e) block[r * n + c] += unit[r * d + e] * unit[c * d + e];
    }
  }
  const int64_t capacity = smore::knn_capacity(k);
  std::vector<T> score(n * capacity), bar(n, -std::numeric_limits<T>::infinity());
  std::vector<int32_t> index(n * capacity), count(n, 0);
  smore::KnnCandidates<T> lists{
      n, k, capacity, smore::knn_margin<T>(d), score.data(), index.data(), count.data(), bar.data()};
  smore::knn_offer_rows(lists, block.data(), n, 0, 0, n, 0, n);
  Neighbours<T> found{std::vector<T>(n * k), std::vector<int64_t>(n * k)};
  smore::knn_finish(lists, x.data(), d, square.data(), found.similarity.data(), found.index.data(), 0, n);
  return found;
}

// As the binding does it. The products are summed from the last element to the first, unlike the CPU's.
template <typename T>
Neighbours<T> search_cuda(const T* x, int64_t n, int64_t d, int64_t k, const KnnShape& shape,
                          int* not_finite = nullptr) {
  const int64_t capacity = smore::knn_capacity(k);
  harness::Array<double> square(n);
  harness::Array<T> score(n * capacity), bar(n), left(shape.left_elements()), right(shape.right_elements()),
      tile(shape.tile_elements()), similarity(n * k);
  harness::Array<uint32_t> index(n * capacity);
  harness::Array<int64_t> count(n), found(n * k);
  harness::Array<int> flag(1);
  const smore::cuda::KnnLists<T> lists{
      n, k, capacity, smore::knn_margin<T>(d), score.data(), index.data(), count.data(), bar.data()};
  smore::cuda::knn_squares(x, d, square.data(), lists, flag.data(), nullptr);
  if (not_finite != nullptr) *not_finite = flag[0];
  const smore::cuda::KnnScratch<T> scratch{left.data(), right.data(), tile.data()};
  smore::cuda::knn_collect(
      lists, x, d, square.data(), shape, scratch,
      [](const T* a, int64_t rows, const T* b, int64_t columns, int64_t width, T* out, int64_t stride, bool add) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            T sum = add ? out[r * stride + c] : T(0);
            for (int64_t e = width - 1; e >= 0; --e) sum += a[r * width + e] * b[c * width + e];
            out[r * stride + c] = sum;
          }
        }
      },
      nullptr);
  smore::cuda::knn_finish(lists, x, d, square.data(), similarity.data(), found.data(), nullptr);
  return {similarity.values(), found.values()};
}

template <typename T>
void compare_one(const std::vector<T>& x, int64_t n, int64_t d, int64_t k, const KnnShape& shape) {
  const Neighbours<T> wanted = search_cpu(x, n, d, k);
  const Neighbours<T> got = search_cuda(harness::Array<T>(x).data(), n, d, k, shape);
  CHECK(harness::same_bits(got.similarity, wanted.similarity));
  CHECK(got.index == wanted.index);
}

template <typename T>
void compare(const std::vector<T>& x, int64_t n, int64_t d, int64_t k, const KnnShape& shape) {
  harness::each_order([&] { compare_one(x, n, d, k, shape); });
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
  compare_one(harness::random_values<float>(1 * 3, 6), 1, 3, 1, smore::cuda::knn_shape<float>(1, 3, 1));
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
  compare_one(std::vector<float>(), 3, 0, 2, smore::cuda::knn_shape<float>(3, 0, 2));
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
  std::vector<float> shifted{0};
  shifted.insert(shifted.end(), x.begin(), x.end());
  const harness::Array<float> features(shifted);
  const Neighbours<float> wanted = search_cpu(x, 30, 8, 5);
  const Neighbours<float> got = search_cuda(features.data() + 1, 30, 8, 5, {16, 16, 4});
  CHECK(harness::same_bits(got.similarity, wanted.similarity) && got.index == wanted.index);
}

TEST(features_that_are_not_finite_are_reported) {
  std::vector<float> x = harness::random_values<float>(135 * 4, 17);
  int flag = -1;
  const auto run = [&] { search_cuda(harness::Array<float>(x).data(), 135, 4, 2, {135, 136, 4}, &flag); };
  run();
  CHECK(flag == 0);
  x[134 * 4 + 1] = std::numeric_limits<float>::quiet_NaN();
  x[131 * 4 + 3] = std::numeric_limits<float>::infinity();
  run();  // and it ends, whatever it finds
  CHECK(flag == std::numeric_limits<int>::max() - 131);
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

TEST(scratch_memory_is_bounded) {
  const auto bytes = [](const KnnShape& shape, int64_t n, int64_t k, int64_t element) {
    return n * (smore::knn_capacity(k) * (element + 4) + 8 + element + 8) +
           (shape.tile_elements() + shape.left_elements() + shape.right_elements()) * element;
  };
  for (const int64_t n : {1, 1000, 7050, 23033, 63001}) {
    for (const int64_t k : {1, 10, 40}) {
      if (k > n) continue;
      for (const int64_t d : {1, 64, 384, 4096, 100000}) {
        CHECK(bytes(smore::cuda::knn_shape<float>(n, d, k), n, k, 4) <= 64'000'000);
        CHECK(bytes(smore::cuda::knn_shape<double>(n, d, k), n, k, 8) <= 64'000'000);
      }
    }
  }
}
