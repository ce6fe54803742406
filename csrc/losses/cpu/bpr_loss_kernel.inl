namespace smore::SMORE_LEVEL {

template <typename T>
void bpr_scores_at(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const int64_t d = batch.d;
  for (int64_t b = begin; b < end; ++b) {
    const T* u = batch.user_rows + batch.users[b] * d;
    const T* p = batch.item_rows + batch.positives[b] * d;
    const T* n = batch.item_rows + batch.negatives[b] * d;
    Vec<T> m{}, s{};
    int64_t j = 0;
    for (; j + W <= d; j += W) {
      const Vec<T> x = load(u + j), y = load(p + j), z = load(n + j);
      m = fma(x, y - z, m);
      s = fma(x, x, fma(y, y, fma(z, z, s)));
    }
    T margin_b = lane_sum<T>(m), square_b = lane_sum<T>(s);
    for (; j < d; ++j) {
      margin_b += u[j] * (p[j] - n[j]);
      square_b += u[j] * u[j] + p[j] * p[j] + n[j] * n[j];
    }
    margin[b] = margin_b;
    square[b] = square_b;
  }
}

template <typename T>
void bpr_scores_apart_at(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const int64_t d = batch.d;
  for (int64_t b = begin; b < end; ++b) {
    const T* u = batch.user_rows + batch.users[b] * d;
    const T* p = batch.item_rows + batch.positives[b] * d;
    const T* n = batch.item_rows + batch.negatives[b] * d;
    Vec<T> m{}, s[3]{};
    int64_t j = 0;
    for (; j + W <= d; j += W) {
      const Vec<T> x = load(u + j), y = load(p + j), z = load(n + j);
      m = fma(x, y - z, m);
      s[0] = fma(x, x, s[0]);
      s[1] = fma(y, y, s[1]);
      s[2] = fma(z, z, s[2]);
    }
    T margin_b = lane_sum<T>(m), of_u = lane_sum<T>(s[0]), of_p = lane_sum<T>(s[1]), of_n = lane_sum<T>(s[2]);
    for (; j < d; ++j) {
      margin_b += u[j] * (p[j] - n[j]);
      of_u += u[j] * u[j];
      of_p += p[j] * p[j];
      of_n += n[j] * n[j];
    }
    margin[b] = margin_b;
    square[b] = of_u;
    square[batch.size + b] = of_p;
    square[2 * batch.size + b] = of_n;
  }
}

// to += a * x + b * y
template <typename T>
SMORE_INLINE void add_scaled(T* to, T a, const T* x, T b, const T* y, int64_t d) {
  constexpr int W = kWidth<T>;
  int64_t j = 0;
  for (; j + W <= d; j += W) {
    store(to + j, fma(broadcast(b), load(y + j), fma(broadcast(a), load(x + j), load(to + j))));
  }
  for (; j < d; ++j) to[j] += a * x[j] + b * y[j];
}

// d(-log sigmoid(m))/dm = -sigmoid(-m)
template <typename T>
SMORE_INLINE T slope(T margin, double grad, double gamma) {
  if (gamma > 0) return static_cast<T>(grad * bpr_gamma_slope(static_cast<double>(margin), gamma));
  return static_cast<T>(-grad / (1.0 + std::exp(static_cast<double>(margin))));
}

template <typename T>
void bpr_user_gradient_at(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_user,
                          int64_t begin, int64_t end) {
  const int64_t d = batch.d;
  const T l2 = static_cast<T>(grad.users);
  for (int64_t b = 0; b < batch.size; ++b) {
    const int64_t user = batch.users[b];
    if (user < begin || user >= end) continue;
    T* to = grad_user + user * d;
    const T c = slope(margin[b], grad.bpr, grad.gamma);
    const T* u = batch.user_rows + user * d;
    add_scaled(to, c, batch.item_rows + batch.positives[b] * d, -c, batch.item_rows + batch.negatives[b] * d, d);
    add_scaled(to, l2, u, T(0), u, d);
  }
}

template <typename T>
void bpr_item_gradient_at(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_item,
                          int64_t begin, int64_t end) {
  const int64_t d = batch.d;
  const T of_positive = static_cast<T>(grad.positives), of_negative = static_cast<T>(grad.negatives);
  for (int64_t b = 0; b < batch.size; ++b) {
    const int64_t positive = batch.positives[b], negative = batch.negatives[b];
    const bool has_positive = positive >= begin && positive < end, has_negative = negative >= begin && negative < end;
    if (!has_positive && !has_negative) continue;
    const T c = slope(margin[b], grad.bpr, grad.gamma);
    const T* u = batch.user_rows + batch.users[b] * d;
    if (has_positive) add_scaled(grad_item + positive * d, c, u, of_positive, batch.item_rows + positive * d, d);
    if (has_negative) add_scaled(grad_item + negative * d, -c, u, of_negative, batch.item_rows + negative * d, d);
  }
}

}  // namespace smore::SMORE_LEVEL
