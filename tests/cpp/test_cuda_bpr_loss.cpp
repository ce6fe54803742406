// BPR on the (emulated) device against the CPU kernels: values, dense gradients with repeated rows, the same bits in
// every order of threads.
#include "cuda_harness.h"
#include "losses/cpu/bpr_loss_kernel.h"
#include "losses/cuda/bpr_loss_kernel.h"

namespace {

constexpr double kBpr = 0.75, kL2 = 0.125, kApart[3] = {0.125, -0.5, 0.25};

template <typename T>
struct Case {
  int64_t n_users, n_items, d, size;
  std::vector<T> user_rows, item_rows;
  std::vector<int64_t> users, positives, negatives;

  Case(int64_t n_users, int64_t n_items, int64_t d, int64_t size)
      : n_users(n_users),
        n_items(n_items),
        d(d),
        size(size),
        user_rows(harness::random_values<T>(n_users * d, 1)),
        item_rows(harness::random_values<T>(n_items * d, 2)),
        users(harness::random_ids(size, n_users, 3)),
        positives(harness::random_ids(size, n_items, 4)),
        negatives(harness::random_ids(size, n_items, 5)) {}
  template <typename From>
  explicit Case(const Case<From>& in)
      : n_users(in.n_users),
        n_items(in.n_items),
        d(in.d),
        size(in.size),
        user_rows(in.user_rows.begin(), in.user_rows.end()),
        item_rows(in.item_rows.begin(), in.item_rows.end()),
        users(in.users),
        positives(in.positives),
        negatives(in.negatives) {}
};

template <typename T>
struct Result {
  std::vector<T> margin, bpr, l2, grad_user, grad_item;
  int64_t outside;
  bool operator==(const Result& other) const {
    using harness::same_bits;
    return same_bits(margin, other.margin) && same_bits(bpr, other.bpr) && same_bits(l2, other.l2) &&
           same_bits(grad_user, other.grad_user) && same_bits(grad_item, other.grad_item) && outside == other.outside;
  }
};

// `shift` elements before the rows, to have them where packs cannot be loaded.
template <typename T>
Result<T> on_device(const Case<T>& in, int64_t shift, const smore::BprRule& rule = {}) {
  const auto shifted = [&](const std::vector<T>& values) {
    std::vector<T> out(static_cast<size_t>(shift));
    out.insert(out.end(), values.begin(), values.end());
    return harness::Array<T>(out);
  };
  const harness::Array<T> user_rows = shifted(in.user_rows), item_rows = shifted(in.item_rows);
  const harness::Array<int64_t> users(in.users), positives(in.positives), negatives(in.negatives);
  const smore::BprBatch<T> batch{user_rows.data() + shift,
                                 item_rows.data() + shift,
                                 users.data(),
                                 positives.data(),
                                 negatives.data(),
                                 in.size,
                                 in.d};
  harness::Array<T> margin(in.size), bpr(1), l2(rule.squares()), grad_user(in.n_users * in.d),
      grad_item(in.n_items * in.d), slope(in.size);
  harness::Array<int64_t> outside(1);
  harness::Array<double> sums(smore::cuda::bpr_loss_scratch(in.size, rule));
  smore::cuda::bpr_loss(batch, in.n_users, in.n_items, margin.data(), bpr.data(), l2.data(), outside.data(),
                        sums.data(), nullptr, rule);
  const harness::Array<T> grad_bpr(std::vector<T>{T(kBpr)});
  const harness::Array<T> grad_l2(rule.apart ? std::vector<T>{T(kApart[0]), T(kApart[1]), T(kApart[2])}
                                             : std::vector<T>{T(kL2)});
  harness::Array<int32_t> lists(smore::cuda::bpr_backward_scratch(in.size, in.n_users, in.n_items, rule));
  smore::cuda::bpr_backward<T>({batch, in.n_users, in.n_items, margin.data(), grad_bpr.data(), grad_l2.data(),
                                grad_user.data(), grad_item.data(), lists.data(), slope.data(), rule},
                               nullptr);
  return {margin.values(), bpr.values(), l2.values(), grad_user.values(), grad_item.values(), outside[0]};
}

// In double whatever the type, so that the tolerance is the device's alone.
Result<double> on_cpu(const Case<double>& in, const smore::BprRule& rule = {}) {
  using T = double;
  const smore::BprBatch<T> batch{in.user_rows.data(),
                                 in.item_rows.data(),
                                 in.users.data(),
                                 in.positives.data(),
                                 in.negatives.data(),
                                 in.size,
                                 in.d};
  Result<T> out{std::vector<T>(in.size),           {}, {}, std::vector<T>(in.n_users * in.d),
                std::vector<T>(in.n_items * in.d), 0};
  std::vector<T> square(rule.squares() * in.size);
  if (rule.apart) {
    smore::bpr_scores_apart(batch, out.margin.data(), square.data(), 0, in.size);
  } else {
    smore::bpr_scores(batch, out.margin.data(), square.data(), 0, in.size);
  }
  double bpr = 0;
  out.l2.resize(rule.squares());
  for (int64_t b = 0; b < in.size; ++b) {
    bpr += rule.gamma > 0 ? smore::bpr_gamma_loss(out.margin[b], rule.gamma) : smore::bpr_softplus(out.margin[b]);
    for (int side = 0; side < rule.squares(); ++side) {
      out.l2[side] += square[side * in.size + b] * (rule.apart ? 1 : 0.5);
    }
  }
  out.bpr = {T(bpr / double(in.size))};
  const double scale = kBpr / double(in.size);
  const smore::BprGradient grad =
      rule.apart ? smore::BprGradient{scale, 2 * kApart[0], 2 * kApart[1], 2 * kApart[2], rule.gamma}
                 : smore::BprGradient{scale, kL2, kL2, kL2, 0};
  smore::bpr_user_gradient(batch, out.margin.data(), grad, out.grad_user.data(), 0, in.n_users);
  smore::bpr_item_gradient(batch, out.margin.data(), grad, out.grad_item.data(), 0, in.n_items);
  return out;
}

template <typename T>
void near(const std::vector<T>& got, const std::vector<double>& wanted) {
  CHECK(got.size() == wanted.size());
  for (size_t i = 0; i < got.size() && i < wanted.size(); ++i) {
    CHECK_NEAR(got[i], wanted[i], (sizeof(T) == 4 ? 2e-5 : 1e-13) * std::max(1.0, std::fabs(wanted[i])));
  }
}

template <typename T>
void compare(const Case<T>& in, int64_t shift = 0, bool orders = true, const smore::BprRule& rule = {}) {
  const Result<double> wanted = on_cpu(Case<double>(in), rule);
  const Result<T> first = on_device(in, shift, rule);
  near(first.margin, wanted.margin);
  near(first.bpr, wanted.bpr);
  near(first.l2, wanted.l2);
  near(first.grad_user, wanted.grad_user);
  near(first.grad_item, wanted.grad_item);
  CHECK(first.outside == 0);
  if (orders) harness::each_order([&] { CHECK(on_device(in, shift, rule) == first); });
}

}  // namespace

TEST(values_and_gradients) {
  for (const int64_t d : {1, 64, 65}) compare(Case<float>(7, 15, d, 30));  // more entries than are listed, and fewer
  for (const int64_t d : {7, 64}) compare(Case<double>(7, 15, d, 30));
  compare(Case<float>(4, 9, 132, 20));
  compare(Case<float>(30, 30, 64, 33), 1);
  compare(Case<double>(30, 30, 64, 33), 1);
  compare(Case<float>(3, 5, 8, 1));
}

TEST(rows_with_very_many_entries) {
  compare(Case<float>(1, 2, 20, 1100));
  compare(Case<double>(40, 2, 2, 1025), 0, false);
}

TEST(more_triples_than_the_blocks_of_the_forward_hold_at_once) {
  const Case<float> in(50, 70, 4, 16500);
  const harness::Array<float> user_rows(in.user_rows), item_rows(in.item_rows);
  const harness::Array<int64_t> users(in.users), positives(in.positives), negatives(in.negatives);
  harness::Array<float> margin(in.size), bpr(1), l2(1);
  harness::Array<int64_t> outside(1);
  harness::Array<double> sums(smore::cuda::bpr_loss_scratch(in.size));
  smore::cuda::bpr_loss<float>(
      {user_rows.data(), item_rows.data(), users.data(), positives.data(), negatives.data(), in.size, in.d}, in.n_users,
      in.n_items, margin.data(), bpr.data(), l2.data(), outside.data(), sums.data(), nullptr);
  const Result<double> wanted = on_cpu(Case<double>(in));
  near(margin.values(), wanted.margin);
  near(bpr.values(), wanted.bpr);
  near(l2.values(), wanted.l2);
  CHECK(outside[0] == 0);
}

TEST(squares_apart_and_gamma) {
  for (const double gamma : {0.0, 1e-10, 0.3}) {
    compare(Case<float>(7, 15, 65, 30), 0, true, {gamma, true});
    compare(Case<double>(30, 9, 64, 90), 0, true, {gamma, true});
  }
  compare(Case<float>(1, 2, 20, 1100), 1, false, {0.3, true});  // long rows
}

TEST(an_item_may_be_positive_and_negative_at_once_and_both_sides_one_matrix) {
  Case<float> in(12, 12, 12, 50);
  in.item_rows = in.user_rows;
  in.negatives = in.positives;
  compare(in);
}

TEST(margins_of_any_size) {
  Case<float> in(8, 8, 4, 20);
  for (float& value : in.user_rows) value *= 1000;
  const Result<float> got = on_device(in, 0);
  const Result<double> wanted = on_cpu(Case<double>(in));
  CHECK(std::isfinite(got.bpr[0]));
  CHECK_NEAR(got.bpr[0], wanted.bpr[0], 1e-5 * wanted.bpr[0]);
}

TEST(triples_out_of_range_are_left_out_and_counted) {
  for (const int64_t size : {int64_t{20}, int64_t{90}}) {  // short lists, and rows that a block reads the batch for
    Case<float> all(4, 6, 8, size), rest = all;
    all.users[3] = 4;
    all.positives[7] = -1;
    all.negatives[size - 1] = int64_t{1} << 40;
    for (const int64_t b : {size - 1, int64_t{7}, int64_t{3}}) {
      for (std::vector<int64_t>* ids : {&rest.users, &rest.positives, &rest.negatives}) ids->erase(ids->begin() + b);
    }
    rest.size -= 3;
    const Result<double> wanted = on_cpu(Case<double>(rest));
    harness::each_order([&] {
      const Result<float> got = on_device(all, 0);
      CHECK(got.outside == 3);
      near(got.l2, wanted.l2);
      CHECK_NEAR(got.bpr[0] * float(size), wanted.bpr[0] * double(size - 3), 1e-3);
      for (const auto* grad : {&got.grad_user, &got.grad_item}) {
        for (const float value : *grad) CHECK(std::isfinite(value));
      }
    });
  }
}
