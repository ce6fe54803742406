// edge_dot_rows against sums in double, and its independence of how rows are shared out.
#include "edge_problem.h"
#include "sparse/cpu/edge_dot_kernel.h"

namespace {

using namespace edge_problem;
using smore::Accumulator;
using smore::BFloat16;

template <typename S, typename I>
void compare(const std::vector<int64_t>& lengths, int64_t n_cols, int64_t width) {
  using T = Accumulator<S>;
  const Edges<I> edges = edges_of<I>(lengths, n_cols);
  const auto u = values_in_memory<S>(edges.n_rows() * width, 1), v = values_in_memory<S>(n_cols * width, 2);
  std::vector<T> whole(edges.col.size(), T(NAN)), parts = whole;
  for (std::vector<T>* out : {&whole, &parts}) {
    const smore::EdgeDot<S, I> job{edges.rowptr.data(), edges.col.data(), edges.n_rows(), n_cols,
                                   edges.n_edges(),     u.data(),         v.data(),       width,
                                   out->data()};
    harness::run_ranges(edges.n_rows(), out == &whole ? 1 : 3,
                        [&](int64_t begin, int64_t end) { CHECK(smore::edge_dot_rows(job, begin, end)); });
  }
  for (int64_t e = 0; e < edges.n_edges(); ++e) {
    CHECK(whole[static_cast<size_t>(e)] == parts[static_cast<size_t>(e)]);
    CHECK_NEAR(whole[static_cast<size_t>(e)], exact_dot(edges, e, u.data(), v.data(), width),
               (sizeof(T) == 4 ? 1e-6 : 1e-15) * double(width + 1));
  }
}

}  // namespace

TEST(dots_of_every_width) {
  for (const int64_t width : {0, 1, 3, 4, 7, 8, 15, 16, 17, 32, 33, 63, 64, 65, 100, 128, 192, 260}) {
    compare<float, int32_t>(kMixed, 40, width);
    compare<double, int64_t>(kMixed, 40, width);
    compare<BFloat16, int32_t>(kMixed, 40, width);
  }
  compare<float, int64_t>({0, 0}, 3, 8);
  compare<BFloat16, int64_t>({1}, 1, 64);
  compare<double, int32_t>({300, 2}, 9, 5);
}

TEST(indices_out_of_range_are_refused) {
  const float u[] = {1, 1}, v[] = {1, 2, 3};
  float out[2];
  const auto accepted = [&](std::vector<int32_t> rowptr, std::vector<int32_t> col) {
    return smore::edge_dot_rows<float, int32_t>({rowptr.data(), col.data(), 2, 3, 2, u, v, 1, out}, 0, 2);
  };
  CHECK(accepted({0, 1, 2}, {0, 2}) && out[0] == 1 && out[1] == 3);
  CHECK(!accepted({0, 1, 2}, {0, 3}));
  CHECK(!accepted({0, 1, 2}, {-1, 0}));
  CHECK(!accepted({0, 3, 2}, {0, 0}));
  CHECK(!accepted({0, -1, 2}, {0, 0}));
}
