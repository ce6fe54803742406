// spmm_rows against a product summed in double, and its independence of the number of threads.
#include "sparse/cpu/spmm_kernel.h"

#include <cstring>
#include <limits>

#include "harness.h"
#include "sparse/cpu/balanced_row.h"
#include "sparse/cpu/gather_kernel.h"

namespace {

using smore::Accumulator;
using smore::BFloat16;

template <typename S>
std::vector<S> values_in_memory(int64_t count, unsigned seed) {
  std::vector<S> values;
  for (const auto v : harness::random_values<Accumulator<S>>(count, seed)) values.push_back(smore::narrowed<S>(v));
  return values;
}

template <typename S>
double wide(S value) {
  return static_cast<double>(smore::widened(value));
}

template <typename S>
bool same(const std::vector<S>& a, const std::vector<S>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0;
}

template <typename S, typename I>
void compare(int64_t n_rows, int64_t n_cols, int64_t width) {
  std::vector<I> rowptr{0}, col;
  for (int64_t r = 0; r < n_rows; ++r) {  // row r has r % 5 edges, and one row is long
    for (const int64_t c : harness::random_ids(r == 2 ? 300 : r % 5, n_cols, static_cast<unsigned>(r))) {
      col.push_back(static_cast<I>(c));
    }
    rowptr.push_back(static_cast<I>(col.size()));
  }
  const int64_t n_edges = static_cast<int64_t>(col.size());
  const auto weight = harness::random_values<Accumulator<S>>(n_edges, 1);
  const auto x = values_in_memory<S>(n_cols * width, 2), addend = values_in_memory<S>(n_rows * width, 3);
  const auto one = values_in_memory<S>(n_rows * width, 4), two = values_in_memory<S>(n_rows * width, 5);
  const auto inner = harness::random_values<Accumulator<S>>(n_rows, 6);
  const auto outer = harness::random_values<Accumulator<S>>(n_rows, 7);
  const auto coefficients = harness::random_values<Accumulator<S>>(2, 8);
  const smore::CsrMatrix<Accumulator<S>, I> a{rowptr.data(), col.data(), weight.data(), n_rows, n_cols, n_edges};
  auto ones = a;  // the same matrix without weights
  ones.weight = nullptr;

  struct Results {
    std::vector<S> product, sum, first, second, free, once, both;
  } whole, parts;
  for (Results* r : {&whole, &parts}) {
    for (std::vector<S>* v : {&r->product, &r->sum, &r->first, &r->second, &r->free, &r->once, &r->both}) {
      v->resize(n_rows * width);
    }
    const smore::SpmmOutput<S> plain{.y = r->product.data()};
    const smore::SpmmOutput<S> scaled{.y = r->sum.data(),
                                      .addend = addend.data(),
                                      .scale = Accumulator<S>(0.5),
                                      .factor = {one.data(), two.data()},
                                      .scaled = {r->first.data(), r->second.data()}};
    const smore::SpmmOutput<S> free{
        .y = r->free.data(), .addend = addend.data(), .inner = inner.data(), .outer = outer.data()};
    smore::SpmmOutput<S> once = free, both{.y = r->both.data(), .addend = addend.data(), .both = true};
    once.y = r->once.data();
    once.coefficient = both.coefficient = coefficients.data();
    for (const auto& out : {plain, scaled, free, once, both}) {
      harness::run_ranges(n_rows, r == &whole ? 1 : 3, [&](int64_t begin, int64_t end) {
        CHECK(smore::spmm_rows(out.inner == nullptr ? a : ones, x.data(), width, out, begin, end));
      });
    }
  }
  CHECK(same(whole.product, parts.product) && same(whole.sum, parts.sum));
  CHECK(same(whole.first, parts.first) && same(whole.second, parts.second) && same(whole.free, parts.free));
  CHECK(same(whole.once, parts.once) && same(whole.both, parts.both));

  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t w = 0; w < width; ++w) {
      double wanted = 0, unweighted = 0;
      for (I e = rowptr[r]; e < rowptr[r + 1]; ++e) {
        wanted += double(weight[e]) * wide(x[col[e] * width + w]);
        unweighted += wide(x[col[e] * width + w]);
      }
      const int64_t at = r * width + w;
      const auto near = [&](S got, double value) {
        const double sums = sizeof(Accumulator<S>) == 4 ? 1e-4 : 1e-12;
        CHECK_NEAR(wide(got), value, sums + (sizeof(S) == 2 ? std::fabs(value) / 256 : 0));
      };
      near(whole.product[at], wanted);
      const double sum = 0.5 * (wide(addend[at]) + wanted);
      near(whole.sum[at], sum);
      near(whole.first[at], sum * wide(one[at]));
      near(whole.second[at], sum * wide(two[at]));
      near(whole.free[at], (wide(addend[at]) + unweighted * double(inner[r])) * double(outer[r]));
      const double term = wide(addend[at]) * double(coefficients[0]);
      near(whole.once[at], (term + unweighted * double(inner[r])) * double(outer[r]));
      near(whole.both[at], term + wanted * double(coefficients[1]));
    }
  }
}

}  // namespace

TEST(products_match_double) {
  for (const int64_t width : {1, 3, 7, 16, 33, 64, 100, 192}) {
    compare<float, int32_t>(23, 17, width);
    compare<double, int64_t>(23, 17, width);
    compare<BFloat16, int32_t>(23, 17, width);
  }
  compare<float, int64_t>(1, 1, 64);
  compare<double, int32_t>(200, 3, 5);
}

// To the nearest, ties to even; beyond the largest: infinity; NaN stays NaN.
TEST(bfloat16_rounds_as_torch_does) {
  const auto bits = [](float value) { return smore::narrowed<BFloat16>(value).bits; };
  CHECK(bits(1.0f) == 0x3f80 && bits(-1.0f) == 0xbf80 && bits(0.0f) == 0 && bits(-0.0f) == 0x8000);
  CHECK(bits(1.00390625f) == 0x3f80 && bits(1.01171875f) == 0x3f82);  // half way: to the even one
  CHECK(bits(1.00390637f) == 0x3f81 && bits(1.00390613f) == 0x3f80);
  CHECK(bits(3.4e38f) == 0x7f80 && bits(-INFINITY) == 0xff80 && bits(1e-45f) == 0);
  CHECK(bits(NAN) == 0x7fc0 && bits(-NAN) == 0x7fc0);
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const float wide = smore::widened(BFloat16{static_cast<uint16_t>(b)});
    CHECK(wide != wide || bits(wide) == b);
  }
  // In registers as one by one.
  const std::vector<float> weight{1}, values = {1.00390625f, 1.01171875f, 3.4e38f, NAN, -NAN, INFINITY, 1e-45f, -0.0f};
  const std::vector<int32_t> rowptr{0, 1}, col{0};
  for (const float value : values) {
    const std::vector<BFloat16> one(40, {0x3f80});
    const std::vector<float> by{value};
    std::vector<BFloat16> y(40);
    const smore::CsrMatrix<float, int32_t> a{rowptr.data(), col.data(), by.data(), 1, 1, 1};
    CHECK(smore::spmm_rows(a, one.data(), 40, smore::SpmmOutput<BFloat16>{.y = y.data()}, 0, 1));
    for (const BFloat16 got : y) CHECK(got.bits == bits(value + 0.0f));
  }
}

TEST(indices_out_of_range_are_refused) {
  const float weight[] = {1, 1}, x[] = {1, 2, 3};
  float y[2];
  const smore::SpmmOutput<float> out{.y = y};
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

// Before a kernel has checked its rows, row pointers may hold anything between their ends.
template <typename I>
void check_parts(I wrong) {
  for (const std::vector<I>& rowptr : {std::vector<I>{0, wrong, wrong, wrong, wrong, 5},
                                       {0, 1, 2, wrong, 4, 5},
                                       {0, wrong, 2, 3, 4, 5},
                                       {0, 4, 3, 2, 1, 5}}) {
    for (int64_t parts = 1; parts < 9; ++parts) {
      int64_t row = 0;
      for (int64_t p = 0; p < parts; ++p) {
        CHECK(smore::balanced_row(rowptr.data(), 5, p, parts) == row);
        row = smore::balanced_row(rowptr.data(), 5, p + 1, parts);
        CHECK(row >= smore::balanced_row(rowptr.data(), 5, p, parts));
      }
      CHECK(row == 5);
    }
  }
}

TEST(parts_cover_all_rows_of_unchecked_pointers) {
  for (const int32_t wrong : {-10, 10, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()}) {
    check_parts<int32_t>(wrong);
    check_parts<int64_t>(wrong);
  }
  check_parts<int64_t>(std::numeric_limits<int64_t>::min());
  check_parts<int64_t>(std::numeric_limits<int64_t>::max());
}

TEST(weights_in_another_order) {
  const float weight[] = {5, 6, 7};
  float out[3] = {};
  const auto accepted = [&](std::vector<int64_t> order) {
    return smore::gather_weights(weight, order.data(), 3, out, 0, 2) &&
           smore::gather_weights(weight, order.data(), 3, out, 2, 3);
  };
  CHECK(accepted({2, 0, 1}) && out[0] == 7 && out[1] == 5 && out[2] == 6);
  CHECK(!accepted({2, 3, 1}) && !accepted({2, 0, -1}));
}
