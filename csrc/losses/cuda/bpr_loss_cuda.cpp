// CUDA binding of bpr_loss.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cuda/capture.h"
#include "cuda/index_check.h"
#include "losses/bpr_loss.h"
#include "losses/bpr_loss_run.h"
#include "losses/cuda/bpr_loss_kernel.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
std::tuple<Tensor, Tensor, Tensor> forward(const BprInputs& in, const BprRule& rule) {
  const BprBatch<T> batch = in.view<T>();
  const auto options = in.user_rows.options();
  Tensor margin = at::empty({batch.size}, options);
  const at::DimVector shape(rule.apart ? 1 : 0, 3);
  if (batch.size == 0) return {at::zeros({}, options), at::zeros(shape, options), margin};
  Tensor bpr = at::empty({}, options), squares = at::empty(shape, options), outside = at::empty({}, in.users.options());
  Tensor scratch = at::empty({cuda::bpr_loss_scratch(batch.size, rule)}, options.dtype(at::kDouble));
  const int64_t n_users = in.user_rows.size(0), n_items = in.item_rows.size(0);
  cuda::bpr_loss(batch, n_users, n_items, margin.mutable_data_ptr<T>(), bpr.mutable_data_ptr<T>(),
                 squares.mutable_data_ptr<T>(), outside.mutable_data_ptr<int64_t>(), scratch.mutable_data_ptr<double>(),
                 c10::cuda::getCurrentCUDAStream(), rule);
  // Ids are checked by the way: one number to read back, except from a graph, which runs later. Only if that says so is
  // it found out which id is wrong.
  if (!cuda::capturing() && outside.item<int64_t>() > 0) {
    cuda::check_ids_cuda("bpr_loss", "users", in.users, n_users);
    cuda::check_ids_cuda("bpr_loss", "positives", in.positives, n_items);
    cuda::check_ids_cuda("bpr_loss", "negatives", in.negatives, n_items);
  }
  return {bpr, squares, margin};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const BprInputs& in, const Tensor& margin, const Tensor& grad_bpr,
                                    const Tensor& grad_squares, const BprRule& rule) {
  const BprBatch<T> batch = in.view<T>();
  const auto options = in.user_rows.options();
  if (batch.size == 0) return {at::zeros(in.user_rows.sizes(), options), at::zeros(in.item_rows.sizes(), options)};
  Tensor grad_users = at::empty(in.user_rows.sizes(), options), grad_items = at::empty(in.item_rows.sizes(), options);
  const int64_t n_users = in.user_rows.size(0), n_items = in.item_rows.size(0);
  Tensor scratch = at::empty({cuda::bpr_backward_scratch(batch.size, n_users, n_items, rule)}, options.dtype(at::kInt));
  Tensor slope = at::empty({batch.size}, options);
  const Tensor margins = margin.contiguous(), of_squares = grad_squares.contiguous();
  cuda::bpr_backward<T>(
      {batch, n_users, n_items, margins.const_data_ptr<T>(), grad_bpr.const_data_ptr<T>(),
       of_squares.const_data_ptr<T>(), grad_users.mutable_data_ptr<T>(), grad_items.mutable_data_ptr<T>(),
       scratch.mutable_data_ptr<int32_t>(), slope.mutable_data_ptr<T>(), rule},
      c10::cuda::getCurrentCUDAStream());
  return {grad_users, grad_items};
}

std::tuple<Tensor, Tensor, Tensor> bpr_loss_cuda(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                 const Tensor& users, const Tensor& positives,
                                                 const Tensor& negatives) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  const c10::cuda::CUDAGuard guard(user_embeddings.device());
  const BprInputs in(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings, [&](auto t) { return forward<decltype(t)>(in, {}); });
}

std::tuple<Tensor, Tensor> bpr_loss_backward_cuda(const Tensor& grad_bpr, const Tensor& grad_l2,
                                                  const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                  const Tensor& users, const Tensor& positives, const Tensor& negatives,
                                                  const Tensor& margin) {
  check_bpr_loss_backward(grad_bpr, grad_l2, false, user_embeddings, item_embeddings, users, positives, negatives,
                          margin);
  const c10::cuda::CUDAGuard guard(user_embeddings.device());
  const BprInputs in(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings,
                           [&](auto t) { return backward<decltype(t)>(in, margin, grad_bpr, grad_l2, {}); });
}

std::tuple<Tensor, Tensor, Tensor> bpr_loss_apart_cuda(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                       const Tensor& users, const Tensor& positives,
                                                       const Tensor& negatives, double gamma) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  check_bpr_gamma("bpr_loss", gamma);
  const c10::cuda::CUDAGuard guard(user_embeddings.device());
  const BprInputs in(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings, [&](auto t) { return forward<decltype(t)>(in, {gamma, true}); });
}

std::tuple<Tensor, Tensor> bpr_loss_backward_apart_cuda(const Tensor& grad_bpr, const Tensor& grad_squares,
                                                        const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                        const Tensor& users, const Tensor& positives,
                                                        const Tensor& negatives, const Tensor& margin, double gamma) {
  check_bpr_loss_backward(grad_bpr, grad_squares, true, user_embeddings, item_embeddings, users, positives, negatives,
                          margin);
  check_bpr_gamma("bpr_loss_backward", gamma);
  const c10::cuda::CUDAGuard guard(user_embeddings.device());
  const BprInputs in(user_embeddings, item_embeddings, users, positives, negatives);
  const BprRule rule{gamma, true};
  return dispatch_floating(user_embeddings,
                           [&](auto t) { return backward<decltype(t)>(in, margin, grad_bpr, grad_squares, rule); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  bpr_loss_op::bind(m, &bpr_loss_cuda);
  bpr_loss_backward_op::bind(m, &bpr_loss_backward_cuda);
  bpr_loss_apart_op::bind(m, &bpr_loss_apart_cuda);
  bpr_loss_backward_apart_op::bind(m, &bpr_loss_backward_apart_cuda);
}

}  // namespace smore
