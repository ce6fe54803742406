// knn by products of bytes: scratch memory, the products by torch, and the switch. Off unless asked for: it has not run
// on a GPU.
#include <ATen/ops/_int_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/max.h>
#include <ATen/ops/stack.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "common/module_part.h"
#include "cuda/capture.h"
#include "neighbours/cuda/int8_rows_kernel.h"
#include "neighbours/cuda/knn_int8.h"
#include "neighbours/cuda/knn_lists.h"

namespace smore {
namespace {

using at::Tensor;

std::atomic<bool> int8_products{false};

void set_knn_products(const std::string& which) {
  if (which != "float32" && which != "int8") {
    throw std::invalid_argument("smore_ext: products of knn must be float32 or int8, got " + which);
  }
  int8_products = which == "int8";
}

const ModulePart part([](pybind11::module_& m) {
  m.def("set_knn_products", &set_knn_products, pybind11::arg("which"),
        "What finds the candidates of knn on a GPU: float32 or int8. For tests and measurements.");
});

// Steps of rows, and the largest of what they are off by: the host waits for that.
struct Steps {
  Tensor step, rest, low;
  double most_rest, most_low;
  Steps(const KnnRows& of, cudaStream_t stream)
      : step(at::empty({of.rows.size(0)}, of.rows.options())), rest(at::empty_like(step)), low(at::empty_like(step)) {
    cuda::int8_steps(of.rows.const_data_ptr<float>(), of.rows.size(0), of.rows.size(1),
                     of.square.const_data_ptr<double>(), step.mutable_data_ptr<float>(), rest.mutable_data_ptr<float>(),
                     low.mutable_data_ptr<float>(), stream);
    const Tensor most = at::stack({rest.max(), low.max()}).cpu();
    most_rest = most.const_data_ptr<float>()[0];
    most_low = most.const_data_ptr<float>()[1];
  }
};

struct Scratch {
  Tensor left, right, high, cross;
  Scratch(const cuda::Int8Shape& shape, const at::TensorOptions& options)
      : left(at::empty({shape.left_bytes()}, options.dtype(at::kChar))),
        right(at::empty({shape.right_bytes()}, options.dtype(at::kChar))),
        high(at::empty({shape.tile_elements()}, options.dtype(at::kInt))),
        cross(at::empty({shape.tile_elements()}, options.dtype(at::kInt))) {}
  cuda::Int8Scratch pointers() {
    return {left.mutable_data_ptr<int8_t>(), right.mutable_data_ptr<int8_t>(), high.mutable_data_ptr<int32_t>(),
            cross.mutable_data_ptr<int32_t>()};
  }
  void operator()(const int8_t*, int64_t rows, const int8_t*, int64_t columns, int64_t depth, int32_t*,
                  int32_t*) const {
    const Tensor a = left.narrow(0, 0, rows * 2 * depth).view({rows, 2 * depth});
    const Tensor b = right.narrow(0, 0, columns * 2 * depth).view({columns, 2 * depth});
    Tensor of_high = high.narrow(0, 0, rows * columns).view({rows, columns});
    Tensor all = cross.narrow(0, 0, rows * columns).view({rows, columns});
    at::_int_mm_out(of_high, a.narrow(1, 0, depth), b.narrow(1, depth, depth).t());
    at::_int_mm_out(all, a, b.t());
  }
};

}  // namespace

bool knn_int8_wanted() { return int8_products && !cuda::capturing(); }

bool knn_int8(const KnnRows& queries, const KnnRows& base, int64_t k, KnnSelf self, Tensor& similarity, Tensor& index,
              cudaStream_t stream) {
  const bool own = self != KnnSelf::none;
  const int64_t all = queries.rows.size(0), n = base.rows.size(0), d = base.rows.size(1);
  if (d == 0 || d > cuda::kInt8Widest) return false;
  const int64_t listed = own ? all : std::min<int64_t>(all, 1024), width = index.size(1);
  const int64_t other = cuda::knn_list_bytes<float>(listed, k) + 8 * (own ? n : all + n) + 12 * (own ? n : all + n);
  const cuda::Int8Shape shape = cuda::int8_shape(listed, n, d, other);
  if (shape.rows == 0) return false;
  const Steps of_base(base, stream);
  const std::optional<Steps> of_queries = own ? std::nullopt : std::optional<Steps>(std::in_place, queries, stream);
  const Steps& of_rows = own ? of_base : *of_queries;
  const double margin =
      cuda::int8_margin(std::max(of_rows.most_rest, of_base.most_rest), std::max(of_rows.most_low, of_base.most_low));
  if (!(margin <= cuda::kInt8Margin)) return false;
  const int64_t run = own ? all : std::min(all, shape.rows);
  KnnListMemory<float> memory(run, k, static_cast<float>(margin), base.rows.options());
  Scratch scratch(shape, base.rows.options());
  for (int64_t i = 0; i < all; i += run) {
    const int64_t rows = std::min(run, all - i);
    const cuda::KnnTables<float> tables{queries.rows.const_data_ptr<float>() + i * d,
                                        queries.square.const_data_ptr<double>() + i,
                                        base.rows.const_data_ptr<float>(),
                                        base.square.const_data_ptr<double>(),
                                        n,
                                        d,
                                        self};
    const cuda::Int8Tables steps{of_rows.step.const_data_ptr<float>() + i, of_base.step.const_data_ptr<float>()};
    const cuda::KnnLists<float> lists = memory.emptied(stream);
    if (own) {
      cuda::int8_collect(lists, tables, steps, shape, scratch.pointers(), scratch, stream);
    } else {
      cuda::int8_collect_strip(lists, tables, steps, rows, shape, scratch.pointers(), scratch, stream);
    }
    cuda::knn_finish(lists, tables, rows, similarity.mutable_data_ptr<float>() + i * width,
                     index.mutable_data_ptr<int64_t>() + i * width, stream);
  }
  return true;
}

}  // namespace smore
