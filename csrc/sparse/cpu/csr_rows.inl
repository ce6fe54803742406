// Checks of the rows of a CSR matrix that a kernel is about to follow.
namespace smore::SMORE_LEVEL {

template <typename I>
SMORE_INLINE bool valid_bounds(const I* rowptr, int64_t row, int64_t n_edges) {
  return rowptr[row] >= 0 && rowptr[row] <= rowptr[row + 1] && static_cast<int64_t>(rowptr[row + 1]) <= n_edges;
}

template <typename I>
bool valid_row(const I* rowptr, const I* col, int64_t row, int64_t n_cols, int64_t n_edges) {
  if (!valid_bounds(rowptr, row, n_edges)) return false;
  const int64_t begin = rowptr[row], end = rowptr[row + 1];
  bool ok = true;
  for (int64_t e = begin; e < end; ++e) ok &= static_cast<uint64_t>(col[e]) < static_cast<uint64_t>(n_cols);
  return ok;
}

}  // namespace smore::SMORE_LEVEL
