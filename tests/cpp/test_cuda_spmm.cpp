// Emulated sparse products against sums in double.
#include "cuda_harness.h"
#include "sparse/cpu/spmm_kernel.h"
#include "sparse/cuda/spmm_kernel.h"

namespace {

using harness::Array;
using smore::Accumulator;
using smore::BFloat16;
using smore::cuda::RowLengths;

struct Edges {
  std::vector<int64_t> rowptr{0}, col;
  int64_t n_cols;
};

// Rows of the given lengths with columns that ascend, or come at random in a row longer than the matrix is wide.
Edges edges_of(const std::vector<int64_t>& lengths, int64_t n_cols) {
  Edges edges;
  edges.n_cols = n_cols;
  unsigned seed = 7;
  for (const int64_t length : lengths) {
    for (const int64_t c : harness::random_ids(length, n_cols, ++seed)) edges.col.push_back(c);
    edges.rowptr.push_back(static_cast<int64_t>(edges.col.size()));
  }
  return edges;
}

template <typename To>
std::vector<To> as(const std::vector<int64_t>& from) {
  std::vector<To> to;
  for (const int64_t value : from) to.push_back(static_cast<To>(value));
  return to;
}

// Which outputs are asked for. kScaled: weights of 1, scaled rows. kTerm and kTerms: a sum with one coefficient, or
// two.
enum Ask { kProduct = 1, kSum = 2, kFactors = 4, kAll = 7, kScaled = 8, kTerm = 16, kTerms = 48 };

template <typename M>
Array<M> values_in_memory(int64_t count, unsigned seed) {
  std::vector<M> values;
  for (const auto v : harness::random_values<Accumulator<M>>(count, seed)) values.push_back(smore::narrowed<M>(v));
  return Array<M>(values);
}

template <typename M>
double wide(M value) {
  return static_cast<double>(smore::widened(value));
}

// x, addend, factors and outputs begin `shift` elements behind an aligned address.
template <typename M, typename I>
void compare(const Edges& edges, int64_t width, const RowLengths& lengths, int ask = kProduct, int64_t shift = 0) {
  using T = Accumulator<M>;
  const int64_t n_rows = static_cast<int64_t>(edges.rowptr.size()) - 1, n_edges = edges.rowptr.back();
  const int64_t size = n_rows * width + shift;
  const Array<I> rowptr(as<I>(edges.rowptr)), col(as<I>(edges.col));
  const Array<T> weight(harness::random_values<T>(n_edges, 1));
  const Array<M> x = values_in_memory<M>(edges.n_cols * width + shift, 2), addend = values_in_memory<M>(size, 3);
  const Array<M> factors[2] = {values_in_memory<M>(size, 4), values_in_memory<M>(size, 5)};
  const Array<T> inner(harness::random_values<T>(n_rows, 6)), outer(harness::random_values<T>(n_rows, 7));
  const Array<T> coefficients(harness::random_values<T>(2, 8));
  const bool free = (ask & kScaled) != 0, term = (ask & kTerm) != 0, both = (ask & kTerms) == kTerms;
  const smore::CsrMatrix<T, I> a{rowptr.data(), col.data(),   free ? nullptr : weight.data(),
                                 n_rows,        edges.n_cols, n_edges};
  const bool sum = (ask & kSum) != 0, scaled = (ask & kFactors) != 0, value = (ask & (kProduct | kSum)) != 0;
  std::vector<M> first[3];
  harness::each_order([&] {
    Array<M> results[3] = {Array<M>(size), Array<M>(size), Array<M>(size)};
    Array<char> scratch(smore::cuda::spmm_scratch_bytes<M>(n_edges, width, lengths));
    smore::SpmmOutput<M> out{.y = value ? results[0].data() + shift : nullptr};
    if (sum) out.addend = addend.data() + shift, out.scale = T(0.25);
    if (free) out.inner = inner.data(), out.outer = outer.data();
    if (term) out.coefficient = coefficients.data(), out.both = both;
    for (int i = 0; i < 2 && scaled; ++i) {
      out.factor[i] = factors[i].data() + shift, out.scaled[i] = results[i + 1].data() + shift;
    }
    smore::cuda::spmm(a, x.data() + shift, width, out, lengths, scratch.data(), nullptr);
    for (int i = 0; i < 3; ++i) {
      for (int64_t before = 0; before < shift; ++before) CHECK(std::isnan(wide(results[i][before])));
      if (first[i].empty()) first[i] = results[i].values();
      CHECK(harness::same_bits(results[i].values(), first[i]));
    }
  });
  for (int64_t r = 0; r < n_rows; ++r) {
    const int64_t begin = edges.rowptr[static_cast<size_t>(r)], end = edges.rowptr[static_cast<size_t>(r) + 1];
    for (int64_t w = 0; w < width; ++w) {
      double wanted = 0;
      for (int64_t e = begin; e < end; ++e) {
        wanted += (free ? 1.0 : double(weight[e])) * wide(x[shift + col[e] * width + w]);
      }
      if (free) wanted *= double(inner[r]);
      const int64_t at = shift + r * width + w;
      if (both) wanted *= double(coefficients[1]);
      if (sum) wanted = 0.25 * (wide(addend[at]) * (term ? double(coefficients[0]) : 1.0) + wanted);
      if (free) wanted *= double(outer[r]);
      const double tolerance = (sizeof(T) == 4 ? 1e-7 : 1e-16) * double(end - begin + 4);
      const auto near = [&](int i, double exact) {
        CHECK_NEAR(wide(first[i][static_cast<size_t>(at)]), exact,
                   tolerance + (sizeof(M) == 2 ? std::fabs(exact) / 256 : 0));
      };
      if (value) near(0, wanted);
      for (int i = 0; i < 2 && scaled; ++i) near(i + 1, wanted * wide(factors[i][at]));
    }
  }
}

// Short rows, empty ones, rows of a chunk (64) and one more, long rows that begin and end at borders and beside them.
const std::vector<int64_t> kMixed{3, 0, 61, 64, 65, 0, 63, 128, 1, 130, 61, 64, 9, 0};

}  // namespace

TEST(products_of_every_width) {
  const Edges edges = edges_of(kMixed, 40);
  for (const int64_t width : {1, 3, 7, 16, 33, 64, 100, 192}) compare<float, int32_t>(edges, width, {}, kAll);
  for (const int64_t width : {7, 64, 100, 192, 256}) compare<BFloat16, int32_t>(edges, width, {}, kAll);
}

// Each group size and number of packs a lane, element by element and in packs, for each pair of types; and tiles.
TEST(products_of_every_type) {
  const Edges edges = edges_of({70, 0, 3, 140, 17}, 30);
  for (const int64_t width : {5, 13, 25, 35}) {
    compare<float, int32_t>(edges, width, {}, kProduct);
    compare<float, int64_t>(edges, width, {}, kSum);
    compare<double, int32_t>(edges, width, {}, kSum);
    compare<double, int64_t>(edges, width, {}, kProduct | kFactors);
    compare<BFloat16, int32_t>(edges, width, {}, kFactors);
    compare<BFloat16, int64_t>(edges, width, {}, kSum);
  }
  for (const int64_t width : {8, 20, 64, 96}) {  // doubles go in packs of 2, floats of 4
    compare<float, int32_t>(edges, 2 * width, {}, kSum);
    compare<float, int64_t>(edges, 2 * width, {}, kFactors);
    compare<BFloat16, int64_t>(edges, 4 * width, {}, kProduct);
    compare<double, int32_t>(edges, width, {}, kProduct);
    compare<double, int64_t>(edges, width, {}, kSum);
  }
  compare<float, int32_t>(edges, 212, {}, kSum);
  compare<BFloat16, int32_t>(edges, 264, {}, kSum);
  compare<double, int32_t>(edges, 101, {}, kSum);
}

TEST(products_without_weights) {
  const Edges edges = edges_of(kMixed, 40);
  for (const int ask :
       {kProduct | kScaled, kSum | kScaled, kAll | kScaled, kSum | kTerm, kSum | kTerms, kSum | kScaled | kTerms}) {
    compare<float, int32_t>(edges, 64, {}, ask);
    compare<BFloat16, int32_t>(edges, 64, {}, ask);
    compare<double, int64_t>(edges, 7, {}, ask, 1);
  }
}

TEST(one_very_long_row) {
  std::vector<int64_t> lengths(20, 2);
  lengths[3] = 3000;
  lengths[19] = 700;  // the last row, whose last chunk is not full
  const Edges edges = edges_of(lengths, 300);
  compare<float, int32_t>(edges, 64, {}, kAll);
  compare<double, int64_t>(edges, 3, {}, kSum);
}

TEST(misaligned_views) {
  const Edges edges = edges_of(kMixed, 40);
  compare<float, int32_t>(edges, 64, {}, kAll, 1);
  compare<double, int64_t>(edges, 64, {}, kAll, 1);
  compare<float, int32_t>(edges, 64, {}, kSum, 4);  // again aligned
  compare<BFloat16, int32_t>(edges, 64, {}, kAll, 1);
  compare<BFloat16, int32_t>(edges, 64, {}, kAll, 8);
}

TEST(known_row_lengths) {
  for (const int64_t k : {10, 40, 100}) {
    const Edges edges = edges_of(std::vector<int64_t>(37, k), 37);
    compare<float, int32_t>(edges, 64, {.longest = k, .fixed = k}, kAll);
    compare<double, int64_t>(edges, 5, {.longest = k, .fixed = k});
  }
  const Edges empty = edges_of(std::vector<int64_t>(9, 0), 4);
  compare<float, int32_t>(empty, 64, {.longest = 0, .fixed = 0}, kAll);
  const Edges edges = edges_of(kMixed, 40);
  compare<float, int32_t>(edges, 64, {.longest = 130}, kAll);
  compare<float, int32_t>(edges, 64, {.longest = 10}, kAll);  // no longer true, as in a replayed graph
}

TEST(nothing_to_add) {
  compare<float, int32_t>(edges_of({0, 0, 0}, 5), 64, {}, kAll);
  compare<float, int32_t>(edges_of({0, 0, 0}, 0), 64, {}, kAll);
  compare<float, int32_t>(edges_of({}, 5), 64, {});
  compare<float, int32_t>(edges_of({2, 1}, 5), 0, {});
  compare<double, int64_t>(edges_of({1}, 1), 1, {}, kSum);
}

TEST(rows_are_cut_only_where_one_may_be_long) {
  const auto bytes = [](int64_t n_edges, const RowLengths& lengths) {
    return smore::cuda::spmm_scratch_bytes<float>(n_edges, 64, lengths);
  };
  const int64_t each = int64_t{sizeof(int64_t)} + 2 * 64 * int64_t{sizeof(float)};
  CHECK(bytes(64, {}) == 0 && bytes(65, {}) > 0);
  CHECK(bytes(1 << 16, {.longest = 64}) == 0 && bytes(1 << 16, {.longest = 65}) == (1 << 16) / 64 * each);
  CHECK(bytes(1 << 20, {.longest = 128}) == 0 && bytes(1 << 20, {.longest = 129}) == (1 << 20) / 128 * each);
}

// propagate: y <- (x + A y) * scale, layer by layer, each from the last one's output.
TEST(layers_of_a_propagation) {
  const int64_t n = 33, width = 12, n_layers = 3;
  std::vector<int64_t> lengths(static_cast<size_t>(n), 4);
  lengths[5] = 150;
  const Edges edges = edges_of(lengths, n);
  const Array<int32_t> rowptr(as<int32_t>(edges.rowptr)), col(as<int32_t>(edges.col));
  const Array<double> weight(harness::random_values<double>(edges.rowptr.back(), 1));
  const Array<double> x(harness::random_values<double>(n * width, 2));
  const smore::CsrMatrix<double, int32_t> a{rowptr.data(), col.data(), weight.data(), n, n, edges.rowptr.back()};
  Array<char> scratch(smore::cuda::spmm_scratch_bytes<double>(a.n_edges, width, {}));
  Array<double> spare[2] = {Array<double>(n * width), Array<double>(n * width)};
  const double* from = x.data();
  for (int64_t l = 1; l <= n_layers; ++l) {
    double* to = spare[l % 2].data();
    const double scale = l == n_layers ? 1.0 / double(n_layers + 1) : 1.0;
    smore::cuda::spmm(a, from, width, {.y = to, .addend = x.data(), .scale = scale}, {}, scratch.data(), nullptr);
    from = to;
  }
  std::vector<double> power = x.values(), wanted = power;
  for (int64_t l = 1; l <= n_layers; ++l) {
    std::vector<double> next(power.size(), 0.0);
    for (int64_t r = 0; r < n; ++r) {
      for (int32_t e = rowptr[r]; e < rowptr[r + 1]; ++e) {
        for (int64_t w = 0; w < width; ++w) {
          next[static_cast<size_t>(r * width + w)] += weight[e] * power[static_cast<size_t>(col[e] * width + w)];
        }
      }
    }
    power = next;
    for (size_t i = 0; i < power.size(); ++i) wanted[i] += power[i];
  }
  for (int64_t i = 0; i < n * width; ++i) {
    const double value = wanted[static_cast<size_t>(i)] / double(n_layers + 1);
    CHECK_NEAR(from[i], value, 1e-11 * (1 + std::fabs(value)));
  }
}

// What a graph checked by nobody does: NaN in the rows concerned, no access out of bounds.
TEST(entries_outside_make_their_row_nan) {
  const Array<float> x(harness::random_values<float>(3 * 8, 1)), weight(std::vector<float>(4, 1.0f));
  const auto rows_with_nan = [&](std::vector<int32_t> pointers, std::vector<int32_t> columns) {
    const Array<int32_t> rowptr(pointers), col(columns);
    Array<float> y(3 * 8);
    smore::cuda::spmm<float, int32_t>({rowptr.data(), col.data(), weight.data(), 3, 3, 4}, x.data(), 8, {.y = y.data()},
                                      {}, nullptr, nullptr);
    int rows = 0;
    for (int r = 0; r < 3; ++r) {
      for (int w = 1; w < 8; ++w) CHECK(std::isnan(y[8 * r + w]) == std::isnan(y[8 * r]));
      rows += std::isnan(y[8 * r]) ? 1 << r : 0;
    }
    return rows;
  };
  CHECK(rows_with_nan({0, 1, 2, 4}, {0, 1, 2, 0}) == 0);
  CHECK(rows_with_nan({0, 1, 2, 4}, {0, 3, 2, -1}) == 6);
  rows_with_nan({0, -7, 9, 4}, {0, 1, 2, 0});
  rows_with_nan({100, 50, 2000000000, -2000000000}, {0, 1, 2, 0});
}

// The same with rows in pieces.
TEST(pointers_outside_are_harmless_in_long_rows) {
  const int64_t n_edges = 200, width = 4;
  const Array<float> x(harness::random_values<float>(3 * width, 1)), weight(std::vector<float>(200, 1.0f));
  const Array<int64_t> col(std::vector<int64_t>(200, 1));
  for (const std::vector<int64_t>& pointers :
       {std::vector<int64_t>{0, 190, 20, 200}, std::vector<int64_t>{-5, 300, 0, 9},
        std::vector<int64_t>{150, 100, 50, 0}, std::vector<int64_t>{0, 0, 0, 0},
        std::vector<int64_t>{INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN},
        std::vector<int64_t>{INT64_MIN, 190, INT64_MIN, 1}}) {
    const Array<int64_t> rowptr(pointers);
    Array<float> y(3 * width);
    Array<char> scratch(smore::cuda::spmm_scratch_bytes<float>(n_edges, width, {}));
    smore::cuda::spmm<float, int64_t>({rowptr.data(), col.data(), weight.data(), 3, 3, n_edges}, x.data(), width,
                                      {.y = y.data()}, {}, scratch.data(), nullptr);
  }
}
