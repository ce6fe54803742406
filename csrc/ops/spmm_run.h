// What the bindings of spmm and propagate share on every device: raw views of the tensors, and the order of products.
#pragma once

#include <ATen/core/Tensor.h>

#include "cpu/spmm_kernel.h"

namespace smore {

// Calls f with a value of the type of x and one of the type of the indices.
template <typename F>
void dispatch_spmm(const at::Tensor& x, const at::Tensor& rowptr, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    rowptr.scalar_type() == at::kInt ? f(float(), int32_t()) : f(float(), int64_t());
  } else {
    rowptr.scalar_type() == at::kInt ? f(double(), int32_t()) : f(double(), int64_t());
  }
}

// Contiguous copies (or the tensors themselves) that live as long as the raw view of them.
struct CsrTensors {
  at::Tensor rowptr, col, weight;
  CsrTensors(const at::Tensor& r, const at::Tensor& c, const at::Tensor& w)
      : rowptr(r.contiguous()), col(c.contiguous()), weight(w.contiguous()) {}
  template <typename T, typename I>
  CsrMatrix<T, I> view(int64_t n_cols) const {
    return {rowptr.const_data_ptr<I>(),
            col.const_data_ptr<I>(),
            weight.const_data_ptr<T>(),
            rowptr.size(0) - 1,
            n_cols,
            col.size(0)};
  }
};

// The mean over A^0 x .. A^L x, or A^L x, for L >= 1 and a contiguous x; product(from, out) multiplies by A.
// The sum is made by Horner's scheme, y <- x + A y: nothing but the latest y is written, and two buffers take turns.
template <typename T, typename Empty, typename Product>
at::Tensor propagate_layers(const at::Tensor& x, int64_t n_layers, bool mean, const Empty& empty,
                            const Product& product) {
  at::Tensor layer = x;
  at::Tensor spare[2];
  for (int64_t l = 1; l <= n_layers; ++l) {
    at::Tensor& next = spare[l % 2];
    if (!next.defined()) next = empty();
    SpmmOutput<T> out{nullptr, nullptr, nullptr, T(1)};
    if (mean) {
      out.addend = x.const_data_ptr<T>();
      out.sum = next.mutable_data_ptr<T>();
      if (l == n_layers) out.scale = T(1) / static_cast<T>(n_layers + 1);
    } else {
      out.product = next.mutable_data_ptr<T>();
    }
    product(layer.const_data_ptr<T>(), out);
    layer = next;
  }
  return layer;
}

}  // namespace smore
