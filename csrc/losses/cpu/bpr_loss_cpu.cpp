// CPU binding of bpr_loss: shares the batch (forward) and the embedding rows (backward) out over torch's
// threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/index_check.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "losses/bpr_loss.h"
#include "losses/bpr_loss_run.h"
#include "losses/cpu/bpr_loss_kernel.h"

namespace smore {
namespace {

using at::Tensor;

BprInputs checked_inputs(const Tensor& user_rows, const Tensor& item_rows, const Tensor& users, const Tensor& positives,
                         const Tensor& negatives) {
  BprInputs in(user_rows, item_rows, users, positives, negatives);
  check_ids_cpu("bpr_loss", "users", in.users, user_rows.size(0));
  check_ids_cpu("bpr_loss", "positives", in.positives, item_rows.size(0));
  check_ids_cpu("bpr_loss", "negatives", in.negatives, item_rows.size(0));
  return in;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> forward(const BprInputs& in) {
  const BprBatch<T> batch = in.view<T>();
  const auto options = in.user_rows.options();
  Tensor margin = at::empty({batch.size}, options), square = at::empty({batch.size}, options);
  T* m = margin.mutable_data_ptr<T>();
  T* s = square.mutable_data_ptr<T>();
  parallel_ranges(batch.size, 256, [&](int64_t begin, int64_t end) { bpr_scores(batch, m, s, begin, end); });
  double bpr = 0, l2 = 0;
  for (int64_t b = 0; b < batch.size; ++b) {
    bpr += bpr_softplus(static_cast<double>(m[b]));
    l2 += static_cast<double>(s[b]);
  }
  return {scalar_output<T>(batch.size > 0 ? bpr / static_cast<double>(batch.size) : 0.0, options),
          scalar_output<T>(0.5 * l2, options), margin};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> forward_apart(const BprInputs& in, double gamma) {
  const BprBatch<T> batch = in.view<T>();
  const auto options = in.user_rows.options();
  Tensor margin = at::empty({batch.size}, options), square = at::empty({3, batch.size}, options);
  Tensor squares = empty_output({3}, options);
  T *m = margin.mutable_data_ptr<T>(), *s = square.mutable_data_ptr<T>();
  parallel_ranges(batch.size, 256, [&](int64_t begin, int64_t end) { bpr_scores_apart(batch, m, s, begin, end); });
  double bpr = 0;
  for (int64_t b = 0; b < batch.size; ++b) {
    const double value = static_cast<double>(m[b]);
    bpr += gamma > 0 ? bpr_gamma_loss(value, gamma) : bpr_softplus(value);
  }
  for (int64_t side = 0; side < 3; ++side) {
    double sum = 0;
    for (int64_t b = 0; b < batch.size; ++b) sum += static_cast<double>(s[side * batch.size + b]);
    squares.mutable_data_ptr<T>()[side] = static_cast<T>(sum);
  }
  return {scalar_output<T>(batch.size > 0 ? bpr / static_cast<double>(batch.size) : 0.0, options), squares, margin};
}

// grad_squares: of l2, or of the three sums of squares.
template <typename T>
std::tuple<Tensor, Tensor> backward(const BprInputs& in, const Tensor& margin, const Tensor& grad_bpr,
                                    const Tensor& grad_squares, const BprRule& rule) {
  const BprBatch<T> batch = in.view<T>();
  Tensor grad_users = empty_output(in.user_rows.sizes(), in.user_rows.options());
  Tensor grad_items = empty_output(in.item_rows.sizes(), in.item_rows.options());
  if (batch.size == 0) return {grad_users.zero_(), grad_items.zero_()};
  const Tensor margins = margin.contiguous();
  const T* m = margins.const_data_ptr<T>();
  const Tensor of_squares = grad_squares.contiguous();
  const auto share = [&](int side) {
    const double value = static_cast<double>(of_squares.const_data_ptr<T>()[rule.apart ? side : 0]);
    return rule.apart ? 2 * value : value;
  };
  const BprGradient grad{static_cast<double>(*grad_bpr.const_data_ptr<T>()) / static_cast<double>(batch.size), share(0),
                         share(1), share(2), rule.gamma};
  T* gu = grad_users.mutable_data_ptr<T>();
  T* gi = grad_items.mutable_data_ptr<T>();
  const int64_t d = batch.d;
  parallel_ranges(grad_users.size(0), 1024, [&](int64_t begin, int64_t end) {
    std::fill(gu + begin * d, gu + end * d, T(0));
    bpr_user_gradient(batch, m, grad, gu, begin, end);
  });
  parallel_ranges(grad_items.size(0), 1024, [&](int64_t begin, int64_t end) {
    std::fill(gi + begin * d, gi + end * d, T(0));
    bpr_item_gradient(batch, m, grad, gi, begin, end);
  });
  return {grad_users, grad_items};
}

std::tuple<Tensor, Tensor, Tensor> bpr_loss_cpu(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                const Tensor& users, const Tensor& positives, const Tensor& negatives) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  const BprInputs in = checked_inputs(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings, [&](auto t) { return forward<decltype(t)>(in); });
}

std::tuple<Tensor, Tensor> bpr_loss_backward_cpu(const Tensor& grad_bpr, const Tensor& grad_l2,
                                                 const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                 const Tensor& users, const Tensor& positives, const Tensor& negatives,
                                                 const Tensor& margin) {
  check_bpr_loss_backward(grad_bpr, grad_l2, false, user_embeddings, item_embeddings, users, positives, negatives,
                          margin);
  const BprInputs in = checked_inputs(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings,
                           [&](auto t) { return backward<decltype(t)>(in, margin, grad_bpr, grad_l2, {}); });
}

std::tuple<Tensor, Tensor, Tensor> bpr_loss_apart_cpu(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                      const Tensor& users, const Tensor& positives,
                                                      const Tensor& negatives, double gamma) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  check_bpr_gamma("bpr_loss", gamma);
  const BprInputs in = checked_inputs(user_embeddings, item_embeddings, users, positives, negatives);
  return dispatch_floating(user_embeddings, [&](auto t) { return forward_apart<decltype(t)>(in, gamma); });
}

std::tuple<Tensor, Tensor> bpr_loss_backward_apart_cpu(const Tensor& grad_bpr, const Tensor& grad_squares,
                                                       const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                       const Tensor& users, const Tensor& positives,
                                                       const Tensor& negatives, const Tensor& margin, double gamma) {
  check_bpr_loss_backward(grad_bpr, grad_squares, true, user_embeddings, item_embeddings, users, positives, negatives,
                          margin);
  check_bpr_gamma("bpr_loss_backward", gamma);
  const BprInputs in = checked_inputs(user_embeddings, item_embeddings, users, positives, negatives);
  const BprRule rule{gamma, true};
  return dispatch_floating(user_embeddings,
                           [&](auto t) { return backward<decltype(t)>(in, margin, grad_bpr, grad_squares, rule); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  bpr_loss_op::bind(m, &bpr_loss_cpu);
  bpr_loss_backward_op::bind(m, &bpr_loss_backward_cpu);
  bpr_loss_apart_op::bind(m, &bpr_loss_apart_cpu);
  bpr_loss_backward_apart_op::bind(m, &bpr_loss_backward_apart_cpu);
}

}  // namespace smore
