// The softmax over edges and its backward against double, and their independence of how rows are shared out.
#include "edge_problem.h"
#include "sparse/cpu/edge_softmax_kernel.h"

namespace {

using namespace edge_problem;

template <typename T, typename I>
void compare(const std::vector<int64_t>& lengths, double scale) {
  const Edges<I> edges = edges_of<I>(lengths, 9);
  auto logits = harness::random_values<T>(edges.n_edges(), 1);
  for (T& l : logits) l = static_cast<T>(double(l) * scale);
  const auto g = harness::random_values<T>(edges.n_edges(), 2);
  const size_t size = edges.col.size();
  std::vector<T> y[2] = {std::vector<T>(size, T(NAN)), std::vector<T>(size, T(NAN))}, grad[2] = {y[0], y[0]};
  for (const int i : {0, 1}) {
    harness::run_ranges(edges.n_rows(), i == 0 ? 1 : 3, [&](int64_t begin, int64_t end) {
      CHECK(smore::edge_softmax_rows(edges.rowptr.data(), edges.n_edges(), logits.data(), y[i].data(), begin, end));
    });
    harness::run_ranges(edges.n_rows(), i == 0 ? 1 : 3, [&](int64_t begin, int64_t end) {
      CHECK(smore::edge_softmax_backward_rows(edges.rowptr.data(), edges.n_edges(), y[i].data(), g.data(),
                                              grad[i].data(), begin, end));
    });
  }
  std::vector<double> exact_y, exact_grad;
  exact_softmax(edges, logits.data(), g.data(), exact_y, exact_grad);
  const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-14;
  for (size_t e = 0; e < size; ++e) {
    CHECK(y[0][e] == y[1][e] && grad[0][e] == grad[1][e]);
    CHECK_NEAR(y[0][e], exact_y[e], tolerance);
    CHECK_NEAR(grad[0][e], exact_grad[e], 2 * tolerance);
  }
}

}  // namespace

TEST(softmax_of_every_length) {
  std::vector<int64_t> lengths = kMixed;
  lengths.insert(lengths.begin() + 2, {3000, 1, 700});
  for (const double scale : {1.0, 30.0, 500.0}) {
    compare<float, int32_t>(lengths, scale);
    compare<double, int64_t>(lengths, scale);
    compare<float, int64_t>({1, 2, 3, 4, 5}, scale);
    compare<double, int32_t>({0, 0, 1}, scale);
  }
  compare<float, int32_t>({}, 1);
}

TEST(infinities_and_nan_stay_in_their_row) {
  const float inf = INFINITY;
  const std::vector<int32_t> rowptr{0, 2, 4, 6, 8, 10};
  const std::vector<float> logits{-inf, 3, -inf, -inf, NAN, 1, inf, 1, 2, 2};
  std::vector<float> y(10);
  CHECK(smore::edge_softmax_rows(rowptr.data(), int64_t{10}, logits.data(), y.data(), 0, 5));
  CHECK(y[0] == 0 && y[1] == 1 && y[8] == 0.5f && y[9] == 0.5f);
  for (size_t e = 2; e < 8; ++e) CHECK(std::isnan(y[e]));
}

TEST(pointers_out_of_range_are_refused) {
  const std::vector<double> values(2, 1.0);
  std::vector<double> y(2);
  const auto accepted = [&](std::vector<int64_t> rowptr) {
    const bool forward = smore::edge_softmax_rows(rowptr.data(), int64_t{2}, values.data(), y.data(), 0, 2);
    CHECK(smore::edge_softmax_backward_rows(rowptr.data(), int64_t{2}, values.data(), values.data(), y.data(), 0, 2) ==
          forward);
    return forward;
  };
  CHECK(accepted({0, 1, 2}) && !accepted({0, 3, 2}) && !accepted({0, -1, 2}));
}
