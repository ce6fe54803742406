// CPU binding of gather_rows: shares places, or rows of the gradients, out over torch's threads.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>

#include "cpu/index_check.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "tables/cpu/gather_rows_kernel.h"
#include "tables/gather_rows.h"
#include "tables/gather_rows_run.h"

namespace smore {
namespace {

using at::Tensor;
using at::TensorList;

constexpr int64_t kPlaces = 256, kRows = 1024;  // fewer are not worth waking a thread for

// An index out of range would be read from anywhere: it is looked for in any case.
std::vector<Tensor> gather_rows_cpu(TensorList tables, const Tensor& index, bool /*check*/) {
  constexpr const char* op = "gather_rows";
  check_gather_rows(op, "tables", tables, index, rows_in(tables));
  const Tensor ids = index.contiguous();
  check_ids_cpu(op, "index", ids, tables[0].size(0));
  std::vector<Tensor> result;
  for (const Tensor& table : tables) {
    const Tensor rows = table.contiguous();
    Tensor out = empty_output({ids.size(0), table.size(1)}, table.options());
    dispatch_rows(table, [&](auto type, auto torch_type) {
      using S = decltype(type);
      using Torch = decltype(torch_type);
      const Gather<S> job{rows_of<S, Torch>(rows), ids.const_data_ptr<int64_t>(), table.size(1),
                          rows_to<S, Torch>(out)};
      parallel_ranges(ids.size(0), kPlaces, [&](int64_t begin, int64_t end) { gather_rows(job, {begin, end}); });
    });
    result.push_back(std::move(out));
  }
  return result;
}

std::vector<Tensor> gather_rows_backward_cpu(TensorList grads, const Tensor& index, c10::SymInt rows) {
  constexpr const char* op = "gather_rows_backward";
  const int64_t n = rows.expect_int(), size = index.size(0);
  check_gather_rows(op, "grads", grads, index, index.sym_size(0));
  SMORE_CHECK_VALUE(n >= 0, op, "n must be at least 0, got ", n);
  SMORE_CHECK_VALUE(size < INT32_MAX, op, "index must have fewer than 2^31 - 1 elements, got ", size);
  const Tensor ids = index.contiguous();
  check_ids_cpu(op, "index", ids, n);
  std::vector<Tensor> dense, result;
  int64_t widest = 0;
  for (const Tensor& grad : grads) {
    dense.push_back(grad.contiguous());
    result.push_back(empty_output({n, grad.size(1)}, grad.options()));
    widest = std::max(widest, grad.size(1));
  }
  if (widest == 0) return result;  // of any number of rows: lists of who names them would be all there is
  dispatch_rows(grads[0], [&](auto type, auto torch_type) {
    using S = decltype(type);
    using Torch = decltype(torch_type);
    parallel_ranges(n, kRows, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> links(static_cast<size_t>(end - begin + size));
      std::vector<Accumulator<S>> sum(static_cast<size_t>(widest));
      const RowChains chains{{begin, end}, links.data(), links.data() + (end - begin)};
      chains.make(ids.const_data_ptr<int64_t>(), size);
      for (size_t t = 0; t < dense.size(); ++t) {
        const GatherBackward<S> job{rows_of<S, Torch>(dense[t]), dense[t].size(1), rows_to<S, Torch>(result[t])};
        gather_rows_backward(job, chains, sum.data());
      }
    });
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  gather_rows_op::bind(m, &gather_rows_cpu);
  gather_rows_backward_op::bind(m, &gather_rows_backward_cpu);
}

}  // namespace smore
