namespace smore::SMORE_LEVEL {

// Dot products in double of one row with J others: eight partial sums each (element j goes to sum j mod 8) and one
// fixed tree. Products of floats are exact in double, so every instruction level gives the same bits. Several rows at
// once, since each comes from far away in memory.
template <typename T, int J>
void dot_double(const T* a, const T* const (&b)[J], int64_t d, double (&out)[J]) {
  typedef double Sums __attribute__((vector_size(64)));
  typedef T Eight __attribute__((vector_size(8 * sizeof(T)), aligned(alignof(T)), may_alias));
  Sums sum[J] = {};
  const int64_t whole = d / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    const Sums x = __builtin_convertvector(*reinterpret_cast<const Eight*>(a + j), Sums);
#pragma GCC unroll 8
    for (int i = 0; i < J; ++i) sum[i] += x * __builtin_convertvector(*reinterpret_cast<const Eight*>(b[i] + j), Sums);
  }
  for (int i = 0; i < J; ++i) {
    double s[8];
    std::memcpy(s, &sum[i], sizeof s);
    for (int64_t j = whole; j < d; ++j) s[j % 8] += static_cast<double>(a[j]) * static_cast<double>(b[i][j]);
    out[i] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
}

}  // namespace smore::SMORE_LEVEL
