// spmm, propagate, poly_filter and their backward on every device: raw views of the tensors, and the order of products.
//
// A device brings a class that is made of (op, csr, x), for the matrix of all products that follow, and has
//     static Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options);
//     static Tensor gather(const char* op, const GraphTensors& graph);   // weight[order], contiguous
//     void multiply(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out) const;
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "sparse/csr_matrix.h"
#include "sparse/poly_filter.h"
#include "sparse/rows_dispatch.h"
#include "sparse/spmm.h"

namespace smore {

// Contiguous copies (or the tensors themselves) that live as long as the raw view of them.
struct CsrTensors {
  at::Tensor rowptr, col, weight;
  CsrTensors(const at::Tensor& r, const at::Tensor& c, const at::Tensor& w)
      : rowptr(r.contiguous()), col(c.contiguous()), weight(w.contiguous()) {}
  int64_t n_rows() const { return rowptr.size(0) - 1; }
  template <typename S, typename I>
  CsrMatrix<Accumulator<S>, I> view(int64_t n_cols) const {
    return {read<I>(rowptr), read<I>(col), read<Accumulator<S>>(weight), n_rows(), n_cols, col.size(0)};
  }
};

template <typename Device>
struct SpmmOps {
  using Tensor = at::Tensor;
  using OptionalTensor = std::optional<at::Tensor>;

  static Tensor spmm(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, const OptionalTensor& gate,
                     const OptionalTensor& order, const OptionalTensor& t_order) {
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
    check_spmm("spmm", graph, x, gate);
    return product("spmm", graph, x, 1, false, gate, std::nullopt);
  }

  static Tensor propagate(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, int64_t n_layers,
                          bool mean, const OptionalTensor& gate, const OptionalTensor& scale,
                          const OptionalTensor& order, const OptionalTensor& t_order) {
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
    check_propagate("propagate", graph, x, n_layers, gate, scale);
    return product("propagate", graph, x, n_layers, mean, gate, scale);
  }

  static Tensor poly_filter(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                            const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x,
                            const Tensor& coefficients, const OptionalTensor& scale, const OptionalTensor& order,
                            const OptionalTensor& t_order) {
    constexpr const char* op = "poly_filter";
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
    check_poly_filter(op, graph, x, coefficients, scale);
    const int64_t n_layers = coefficients.size(0) - 1;
    const CsrTensors csr = csr_of(op, graph);
    if (n_layers == 0) {
      check_indices(op, csr, x);
      return times(x, coefficients.select(0, 0));
    }
    const Tensor y = Device::empty(x.sizes(), x.options());
    dispatch_rows(x, rowptr, [&](auto s, auto i) {
      using S = decltype(s);
      layers<S, decltype(i)>(op, csr, x.contiguous(), n_layers, false, scale, {.y = write<S>(y)},
                             coefficients.contiguous());
    });
    return y;
  }

  static std::tuple<Tensor, Tensor> gated_backward(const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                                                   const Tensor& t_rowptr, const Tensor& t_col,
                                                   const OptionalTensor& t_weight, const Tensor& grad, const Tensor& x,
                                                   const Tensor& gate, int64_t n_layers, bool mean,
                                                   const OptionalTensor& scale, const OptionalTensor& order,
                                                   const OptionalTensor& t_order) {
    constexpr const char* op = "gated_product_backward";
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
    check_gated_backward(op, graph, grad, x, gate, n_layers, mean, scale);
    const CsrTensors csr = csr_of(op, graph.t());
    if (n_layers == 0) {
      check_indices(op, csr, grad);
      return {times(grad, gate), times(grad, x)};
    }
    const Tensor to_x = gate.contiguous(), to_gate = x.contiguous();
    const std::tuple<Tensor, Tensor> result{Device::empty(x.sizes(), x.options()),
                                            Device::empty(x.sizes(), x.options())};
    dispatch_rows(x, rowptr, [&](auto s, auto i) {
      using S = decltype(s);
      const SpmmOutput<S> last{.factor = {read<S>(to_x), read<S>(to_gate)},
                               .scaled = {write<S>(std::get<0>(result)), write<S>(std::get<1>(result))}};
      layers<S, decltype(i)>(op, csr, grad.contiguous(), n_layers, mean, scale, last);
    });
    return result;
  }

 private:
  static Tensor times(const Tensor& a, const Tensor& b) {
    Tensor result = Device::empty(a.sizes(), a.options());
    at::mul_out(result, a, b);
    return result;
  }

  // With weights in the order of the edges.
  static CsrTensors csr_of(const char* op, const GraphTensors& graph) {
    return {graph.rowptr, graph.col, graph.order.has_value() ? Device::gather(op, graph) : graph.weight};
  }

  // As a product of x would, for none.
  static void check_indices(const char* op, const CsrTensors& csr, const Tensor& x) {
    dispatch_rows(x, csr.rowptr, [&](auto s, auto i) {
      using S = decltype(s);
      Device(op, csr, x).multiply(csr.view<S, decltype(i)>(x.size(0)), read<S>(x), 0, {});
    });
  }

  static Tensor product(const char* op, const GraphTensors& graph, const Tensor& x, int64_t n_layers, bool mean,
                        const OptionalTensor& gate, const OptionalTensor& scale) {
    const CsrTensors csr = csr_of(op, graph);
    if (n_layers == 0) {
      check_indices(op, csr, x);
      return gate.has_value() ? times(x, *gate) : x.clone(at::MemoryFormat::Contiguous);
    }
    const Tensor first = gate.has_value() ? times(x, *gate) : x.contiguous();
    const Tensor y = Device::empty({csr.n_rows(), x.size(1)}, x.options());
    dispatch_rows(x, csr.rowptr, [&](auto s, auto i) {
      using S = decltype(s);
      layers<S, decltype(i)>(op, csr, first, n_layers, mean, scale, {.y = write<S>(y)});
    });
    return y;
  }

  // A^L x, or the mean over A^0 x .. A^L x, or with contiguous coefficients [L + 1] the sum of c_l A^l x, for L >= 1
  // and a contiguous x, as the outputs that `last` asks for. A sum is made by Horner's scheme, y <- x + A y or c_l x +
  // A y: nothing but the latest y is written, and two buffers take turns. With A = S B S for a diagonal S (scale) and a
  // B of ones, what is written between layers is S y, so that the next layer sums rows as they are: S y <- S (x + S B
  // (S y)).
  template <typename S, typename I>
  static void layers(const char* op, const CsrTensors& csr, const Tensor& x, int64_t n_layers, bool mean,
                     const OptionalTensor& scale, const SpmmOutput<S>& last, const Tensor& coefficients = {}) {
    const Device device(op, csr, x);
    CsrMatrix<Accumulator<S>, I> a = csr.view<S, I>(x.size(0));
    const Tensor diagonal = scale.has_value() ? scale->contiguous() : Tensor();
    Tensor spare[2];
    const S* layer = read<S>(x);
    for (int64_t l = 1; l <= n_layers; ++l) {
      SpmmOutput<S> out = last;
      if (l < n_layers) {
        Tensor& next = spare[l % 2];
        if (!next.defined()) next = Device::empty(x.sizes(), x.options());
        out = {.y = write<S>(next)};
      }
      if (mean) {
        out.addend = read<S>(x);
        if (l == n_layers) out.scale = 1 / static_cast<Accumulator<S>>(n_layers + 1);
      } else if (coefficients.defined()) {
        out.addend = read<S>(x);
        out.coefficient = read<Accumulator<S>>(coefficients) + (n_layers - l);
        out.both = l == 1;  // c_L x is not written
      }
      if (diagonal.defined() && l < n_layers) out.outer = read<Accumulator<S>>(diagonal);
      if (diagonal.defined() && l > 1) {
        out.inner = read<Accumulator<S>>(diagonal);
        a.weight = nullptr;
      }
      device.multiply(a, layer, x.size(1), out);
      layer = out.y;
    }
  }
};

}  // namespace smore
