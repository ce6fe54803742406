// Emulated dot products of edges, and weights in another order, against double.
#include "cuda_harness.h"
#include "edge_problem.h"
#include "sparse/cuda/edge_dot_kernel.h"
#include "sparse/cuda/gather_kernel.h"

namespace {

using namespace edge_problem;
using harness::Array;
using smore::Accumulator;
using smore::BFloat16;
using smore::cuda::RowLengths;

// u and v begin `shift` elements behind an aligned address.
template <typename M, typename I>
void compare(const std::vector<int64_t>& lengths, int64_t n_cols, int64_t width, const RowLengths& known = {},
             int64_t shift = 0) {
  using T = Accumulator<M>;
  const Edges<I> edges = edges_of<I>(lengths, n_cols);
  const Array<I> rowptr(edges.rowptr), col(edges.col);
  const Array<M> u(values_in_memory<M>(edges.n_rows() * width + shift, 1));
  const Array<M> v(values_in_memory<M>(n_cols * width + shift, 2));
  std::vector<T> first;
  harness::each_order([&] {
    Array<T> out(edges.n_edges());
    smore::cuda::edge_dot<M, I>({rowptr.data(), col.data(), edges.n_rows(), n_cols, edges.n_edges(), u.data() + shift,
                                 v.data() + shift, width, out.data()},
                                known, nullptr);
    if (first.empty()) first = out.values();
    CHECK(harness::same_bits(out.values(), first));
  });
  for (int64_t e = 0; e < edges.n_edges(); ++e) {
    CHECK_NEAR(first[static_cast<size_t>(e)], exact_dot(edges, e, u.data() + shift, v.data() + shift, width),
               (sizeof(T) == 4 ? 1e-6 : 1e-15) * double(width + 1));
  }
}

}  // namespace

TEST(dots_of_every_width_and_type) {
  for (const int64_t width : {0, 1, 3, 7, 16, 33, 64, 100, 192}) {
    compare<float, int32_t>(kMixed, 40, width);
    compare<float, int64_t>({70, 0, 3}, 30, width);
    compare<double, int32_t>({5, 0, 3, 140}, 30, width);
    compare<double, int64_t>({5, 0, 3}, 30, width);
    compare<BFloat16, int32_t>(kMixed, 40, width);
    compare<BFloat16, int64_t>({5, 0, 3}, 30, width);
  }
  for (const int64_t width : {8, 24}) {
    compare<float, int64_t>({17, 4}, 30, width);
    compare<double, int32_t>({17, 4}, 30, width / 2);
  }
}

TEST(misaligned_views) {
  compare<float, int32_t>(kMixed, 40, 64, {}, 1);
  compare<double, int64_t>(kMixed, 40, 64, {}, 1);
  compare<BFloat16, int32_t>(kMixed, 40, 64, {}, 1);
  compare<BFloat16, int32_t>(kMixed, 40, 64, {}, 8);
}

TEST(known_row_lengths) {
  compare<float, int32_t>(std::vector<int64_t>(37, 10), 37, 64, {.longest = 10, .fixed = 10});
  compare<double, int64_t>(std::vector<int64_t>(9, 0), 4, 5, {.longest = 0, .fixed = 0});
  compare<float, int64_t>({}, 4, 5);
}

// What a graph checked by nobody does: NaN for an edge that names nothing, no access out of bounds.
TEST(entries_outside_are_nan) {
  const Array<float> u(harness::random_values<float>(3 * 8, 1)), v(harness::random_values<float>(3 * 8, 2));
  const auto edges_with_nan = [&](std::vector<int32_t> pointers, std::vector<int32_t> columns) {
    const Array<int32_t> rowptr(pointers), col(columns);
    Array<float> out(4);
    smore::cuda::edge_dot<float, int32_t>({rowptr.data(), col.data(), 3, 3, 4, u.data(), v.data(), 8, out.data()}, {},
                                          nullptr);
    int edges = 0;
    for (int e = 0; e < 4; ++e) edges += std::isnan(out[e]) ? 1 << e : 0;
    return edges;
  };
  CHECK(edges_with_nan({0, 1, 2, 4}, {0, 1, 2, 0}) == 0);
  CHECK(edges_with_nan({0, 1, 2, 4}, {0, 3, 2, -1}) == 10);
  CHECK(edges_with_nan({0, 1, 2, 3}, {0, 1, 2, 0}) == 8);
  edges_with_nan({0, -7, 9, 4}, {0, 1, 2, 0});
  edges_with_nan({100, 50, 2000000000, -2000000000}, {0, 1, 2, 0});
}

template <typename T, typename I>
void compare_gather() {
  const int64_t n = 700;
  const auto ids = harness::random_ids(n, n, 3);
  std::vector<I> order(ids.begin(), ids.end());
  order[3] = static_cast<I>(n), order[600] = -1;
  const auto values = harness::random_values<T>(n, 4);
  const Array<T> weight(values);
  const Array<I> from(order);
  Array<T> out(n);
  smore::cuda::gather_weights(weight.data(), from.data(), n, out.data(), nullptr);
  for (int64_t e = 0; e < n; ++e) {
    const bool known = e != 3 && e != 600;
    CHECK(known ? out[e] == weight[from[e]] : std::isnan(out[e]));
  }
  smore::cuda::gather_weights(weight.data(), from.data(), 0, out.data(), nullptr);
}

TEST(weights_in_another_order) {
  compare_gather<float, int32_t>();
  compare_gather<float, int64_t>();
  compare_gather<double, int32_t>();
  compare_gather<double, int64_t>();
}
