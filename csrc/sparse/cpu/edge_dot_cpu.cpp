// CPU binding of edge_dot: shares rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/output.h"
#include "sparse/cpu/edge_dot_kernel.h"
#include "sparse/cpu/parallel_rows.h"
#include "sparse/edge_dot.h"
#include "sparse/rows_dispatch.h"

namespace smore {
namespace {

using at::Tensor;

Tensor edge_dot_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& t_rowptr, const Tensor& t_col,
                    const Tensor& t_order, const Tensor& u, const Tensor& v) {
  check_edge_dot("edge_dot", rowptr, col, t_rowptr, t_col, t_order, u, v);
  const Tensor pointers = rowptr.contiguous(), columns = col.contiguous(), left = u.contiguous(),
               right = v.contiguous();
  const int64_t n_rows = u.size(0), n_edges = col.size(0), width = u.size(1);
  const Tensor result = empty_output({n_edges}, u.options().dtype(accumulator_type(u)));
  dispatch_rows(u, rowptr, [&](auto s, auto i) {
    using S = decltype(s);
    using I = decltype(i);
    const EdgeDot<S, I> job{read<I>(pointers),
                            read<I>(columns),
                            n_rows,
                            v.size(0),
                            n_edges,
                            read<S>(left),
                            read<S>(right),
                            width,
                            write<Accumulator<S>>(result)};
    const bool valid = parallel_rows("edge_dot", job.rowptr, n_rows, n_edges, n_edges * width + n_rows,
                                     [&](int64_t first, int64_t last) { return edge_dot_rows(job, first, last); });
    check_entries("edge_dot", valid, job.n_cols);
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { edge_dot_op::bind(m, &edge_dot_cpu); }

}  // namespace smore
