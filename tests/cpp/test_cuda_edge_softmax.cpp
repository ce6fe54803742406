// The emulated softmax over edges and its backward against double.
#include "cuda_harness.h"
#include "edge_problem.h"
#include "sparse/cuda/edge_softmax_kernel.h"

namespace {

using namespace edge_problem;
using harness::Array;
using smore::cuda::RowLengths;

template <typename T, typename I>
void compare(const std::vector<int64_t>& lengths, double scale = 1, const RowLengths& known = {}) {
  const Edges<I> edges = edges_of<I>(lengths, 9);
  const int64_t n = edges.n_edges();
  std::vector<T> values = harness::random_values<T>(n, 1);
  for (T& l : values) l = static_cast<T>(double(l) * scale);
  const Array<I> rowptr(edges.rowptr);
  const Array<T> logits(values), g(harness::random_values<T>(n, 2));
  std::vector<T> y, grad;
  harness::each_order([&] {
    Array<T> out(n), back(n);
    const int64_t bytes = smore::cuda::edge_softmax_scratch_bytes<T>(n, known);
    Array<char> scratch(bytes), again(bytes);
    char* const memory[2] = {bytes > 0 ? scratch.data() : nullptr, bytes > 0 ? again.data() : nullptr};
    smore::cuda::edge_softmax<T, I>({rowptr.data(), edges.n_rows(), n}, logits.data(), out.data(), known, memory[0],
                                    nullptr);
    smore::cuda::edge_softmax_backward<T, I>({rowptr.data(), edges.n_rows(), n}, out.data(), g.data(), back.data(),
                                             known, memory[1], nullptr);
    if (y.empty()) y = out.values(), grad = back.values();
    CHECK(harness::same_bits(out.values(), y) && harness::same_bits(back.values(), grad));
  });
  std::vector<double> exact_y, exact_grad;
  exact_softmax(edges, logits.data(), g.data(), exact_y, exact_grad);
  const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-14;
  for (size_t e = 0; e < edges.col.size(); ++e) {
    CHECK_NEAR(y[e], exact_y[e], tolerance);
    CHECK_NEAR(grad[e], exact_grad[e], 2 * tolerance);
  }
}

}  // namespace

// Few edges a row and many: groups of either size.
TEST(softmax_of_short_and_long_rows) {
  std::vector<int64_t> sparse(60, 2), very_long(20, 2);
  sparse.insert(sparse.end(), kMixed.begin(), kMixed.end());
  very_long[3] = 3000, very_long[19] = 700;  // the last row's last chunk is not full
  for (const double scale : {1.0, 60.0}) {
    for (const std::vector<int64_t>* lengths : {&kMixed, &std::as_const(sparse), &std::as_const(very_long)}) {
      compare<float, int32_t>(*lengths, scale);
      compare<double, int64_t>(*lengths, scale);
    }
    compare<float, int64_t>(sparse, scale);
    compare<double, int32_t>(kMixed, scale);
  }
  compare<float, int64_t>(kMixed);
  compare<double, int32_t>(sparse);
}

TEST(known_row_lengths) {
  for (const int64_t k : {10, 40, 100}) {
    compare<float, int32_t>(std::vector<int64_t>(17, k), 1, {.longest = k, .fixed = k});
  }
  compare<double, int64_t>(std::vector<int64_t>(9, 0), 1, {.longest = 0, .fixed = 0});
  compare<float, int32_t>(kMixed, 1, {.longest = 130});
  compare<float, int32_t>(kMixed, 1, {.longest = 10});  // no longer true, as in a replayed graph
  compare<float, int32_t>({});
}

// The value of edge `at` of a row of `length` zeros is `logit`.
template <typename T>
std::vector<T> one_row(int64_t length, std::initializer_list<int64_t> at, T logit, T others) {
  std::vector<T> values(static_cast<size_t>(length), others);
  for (const int64_t e : at) values[static_cast<size_t>(e)] = logit;
  const Array<int32_t> rowptr(std::vector<int32_t>{0, static_cast<int32_t>(length), static_cast<int32_t>(length)});
  const Array<T> logits(values);
  Array<T> y(length);
  Array<char> scratch(smore::cuda::edge_softmax_scratch_bytes<T>(length, {}));
  smore::cuda::edge_softmax<T, int32_t>({rowptr.data(), 2, length}, logits.data(), y.data(), {},
                                        scratch.size() > 0 ? scratch.data() : nullptr, nullptr);
  return y.values();
}

TEST(infinities_and_nan_as_on_the_cpu) {
  const float inf = INFINITY;
  for (const int64_t length : {5, 300}) {  // 300: in pieces, some of minus infinities alone
    const auto finite = one_row<float>(length, {1}, 2, -inf);
    for (int64_t e = 0; e < length; ++e) CHECK(finite[static_cast<size_t>(e)] == (e == 1 ? 1.0f : 0.0f));
    for (const float value : one_row<float>(length, {}, 0, -inf)) CHECK(std::isnan(value));
    for (const float value : one_row<float>(length, {length - 1}, NAN, 0)) CHECK(std::isnan(value));
    for (const float value : one_row<float>(length, {0}, inf, 0)) CHECK(std::isnan(value));
  }
}

TEST(pointers_outside_are_harmless) {
  const int64_t n_edges = 200;
  const Array<float> logits(harness::random_values<float>(n_edges, 1));
  for (const std::vector<int64_t>& pointers :
       {std::vector<int64_t>{0, 190, 20, 200}, std::vector<int64_t>{-5, 300, 0, 9},
        std::vector<int64_t>{150, 100, 50, 0}, std::vector<int64_t>{0, 0, 0, 0},
        std::vector<int64_t>{INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN}}) {
    const Array<int64_t> rowptr(pointers);
    Array<float> y(n_edges), grad(n_edges);
    Array<char> scratch(smore::cuda::edge_softmax_scratch_bytes<float>(n_edges, {}));
    smore::cuda::edge_softmax<float, int64_t>({rowptr.data(), 3, n_edges}, logits.data(), y.data(), {}, scratch.data(),
                                              nullptr);
    smore::cuda::edge_softmax_backward<float, int64_t>({rowptr.data(), 3, n_edges}, logits.data(), y.data(),
                                                       grad.data(), {}, scratch.data(), nullptr);
  }
}
