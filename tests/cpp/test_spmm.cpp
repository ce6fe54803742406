// spmm_rows against a product summed in double, and its independence of the number of threads.
#include "cpu/spmm_kernel.h"

#include "harness.h"

namespace {

template <typename T, typename I>
void compare(int64_t n_rows, int64_t n_cols, int64_t width) {
  std::vector<I> rowptr{0}, col;
  for (int64_t r = 0; r < n_rows; ++r) {  // row r has r % 5 edges, and one row is long
    for (const int64_t c : harness::random_ids(r == 2 ? 300 : r % 5, n_cols, static_cast<unsigned>(r))) {
      col.push_back(static_cast<I>(c));
    }
    rowptr.push_back(static_cast<I>(col.size()));
  }
  const int64_t n_edges = static_cast<int64_t>(col.size());
  const auto weight = harness::random_values<T>(n_edges, 1);
  const auto x = harness::random_values<T>(n_cols * width, 2);
  const auto addend = harness::random_values<T>(n_rows * width, 3);
  const smore::CsrMatrix<T, I> a{rowptr.data(), col.data(), weight.data(), n_rows, n_cols, n_edges};

  std::vector<T> product(n_rows * width), sum(n_rows * width), product3(n_rows * width), sum3(n_rows * width);
  const smore::SpmmOutput<T> out{product.data(), addend.data(), sum.data(), T(0.5)};
  const smore::SpmmOutput<T> out3{product3.data(), addend.data(), sum3.data(), T(0.5)};
  CHECK(smore::spmm_rows(a, x.data(), width, out, 0, n_rows));
  harness::run_ranges(
      n_rows, 3, [&](int64_t begin, int64_t end) { CHECK(smore::spmm_rows(a, x.data(), width, out3, begin, end)); });
  CHECK(product == product3 && sum == sum3);

  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-12;
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t w = 0; w < width; ++w) {
      double wanted = 0;
      for (I e = rowptr[r]; e < rowptr[r + 1]; ++e) wanted += double(weight[e]) * double(x[col[e] * width + w]);
      CHECK_NEAR(product[r * width + w], wanted, tolerance);
      CHECK_NEAR(sum[r * width + w], 0.5 * (double(addend[r * width + w]) + wanted), tolerance);
    }
  }
}

}  // namespace

TEST(products_match_double) {
  for (const int64_t width : {1, 3, 7, 16, 33, 64, 100, 192}) {
    compare<float, int32_t>(23, 17, width);
    compare<double, int64_t>(23, 17, width);
  }
  compare<float, int64_t>(1, 1, 64);
  compare<double, int32_t>(200, 3, 5);
}

TEST(indices_out_of_range_are_refused) {
  const float weight[] = {1, 1}, x[] = {1, 2, 3};
  float y[2];
  const smore::SpmmOutput<float> out{y, nullptr, nullptr, 1};
  const auto accepted = [&](std::vector<int32_t> rowptr, std::vector<int32_t> col) {
    return smore::spmm_rows<float, int32_t>({rowptr.data(), col.data(), weight, 2, 3, 2}, x, 1, out, 0, 2);
  };
  CHECK(accepted({0, 1, 2}, {0, 2}));
  CHECK(!accepted({0, 1, 2}, {0, 3}));
  CHECK(!accepted({0, 1, 2}, {-1, 0}));
  CHECK(!accepted({0, 3, 2}, {0, 0}));
  CHECK(!accepted({0, -1, 2}, {0, 0}));
}

TEST(parts_cover_all_rows_in_order) {
  const std::vector<int64_t> rowptr{0, 0, 100, 101, 101, 102};
  for (int64_t parts = 1; parts < 9; ++parts) {
    CHECK(smore::balanced_row(rowptr.data(), 5, 0, parts) == 0);
    CHECK(smore::balanced_row(rowptr.data(), 5, parts, parts) == 5);
    for (int64_t p = 0; p < parts; ++p) {
      CHECK(smore::balanced_row(rowptr.data(), 5, p, parts) <= smore::balanced_row(rowptr.data(), 5, p + 1, parts));
    }
  }
}
