// Edges of a CSR matrix for the tests of ops on edges.
#pragma once

#include <cmath>
#include <vector>

#include "common/bfloat16.h"
#include "harness.h"

namespace edge_problem {

template <typename I>
struct Edges {
  std::vector<I> rowptr{0}, col, row;
  int64_t n_rows() const { return static_cast<int64_t>(rowptr.size()) - 1; }
  int64_t n_edges() const { return static_cast<int64_t>(col.size()); }
};

// Rows of the given lengths with random columns.
template <typename I>
Edges<I> edges_of(const std::vector<int64_t>& lengths, int64_t n_cols) {
  Edges<I> edges;
  unsigned seed = 7;
  for (const int64_t length : lengths) {
    for (const int64_t c : harness::random_ids(length, n_cols, ++seed)) {
      edges.col.push_back(static_cast<I>(c));
      edges.row.push_back(static_cast<I>(edges.n_rows()));
    }
    edges.rowptr.push_back(static_cast<I>(edges.col.size()));
  }
  return edges;
}

template <typename S>
std::vector<S> values_in_memory(int64_t count, unsigned seed) {
  std::vector<S> values;
  for (const auto v : harness::random_values<smore::Accumulator<S>>(count, seed))
    values.push_back(smore::narrowed<S>(v));
  return values;
}

// <u[row], v[col]> in double.
template <typename S, typename I>
double exact_dot(const Edges<I>& edges, int64_t e, const S* u, const S* v, int64_t width) {
  double sum = 0;
  const int64_t row = edges.row[static_cast<size_t>(e)], col = edges.col[static_cast<size_t>(e)];
  for (int64_t w = 0; w < width; ++w) {
    sum += double(smore::widened(u[row * width + w])) * double(smore::widened(v[col * width + w]));
  }
  return sum;
}

// Softmax over each row, and its backward for a gradient g, in double.
template <typename T, typename I>
void exact_softmax(const Edges<I>& edges, const T* logits, const T* g, std::vector<double>& y,
                   std::vector<double>& grad) {
  y.resize(edges.col.size()), grad.resize(edges.col.size());
  for (int64_t r = 0; r < edges.n_rows(); ++r) {
    const size_t begin = static_cast<size_t>(edges.rowptr[static_cast<size_t>(r)]);
    const size_t end = static_cast<size_t>(edges.rowptr[static_cast<size_t>(r) + 1]);
    double top = -INFINITY, sum = 0, mean = 0;
    for (size_t e = begin; e < end; ++e) top = std::fmax(top, double(logits[e]));
    for (size_t e = begin; e < end; ++e) sum += y[e] = std::exp(double(logits[e]) - top);
    for (size_t e = begin; e < end; ++e) mean += (y[e] /= sum) * double(g[e]);
    for (size_t e = begin; e < end; ++e) grad[e] = y[e] * (double(g[e]) - mean);
  }
}

// Short rows, empty ones, rows of a chunk of the CUDA kernels (64) and one more, long ones that begin and end at
// borders and beside them.
inline const std::vector<int64_t> kMixed{3, 0, 61, 64, 65, 0, 63, 128, 1, 130, 61, 64, 9, 0};

}  // namespace edge_problem
