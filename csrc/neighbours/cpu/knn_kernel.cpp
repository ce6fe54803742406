#include "neighbours/cpu/knn_kernel.h"

#include <functional>

#include "cpu/aligned.h"
#include "neighbours/cosine.h"

namespace smore {
namespace {

// Here and not in the kernel file: sorts are compiled for every processor, and what they call must be too.
template <typename T>
struct Neighbour {
  T similarity;
  int64_t index;
};

template <typename T>
struct Nearer {
  bool operator()(const Neighbour<T>& a, const Neighbour<T>& b) const {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
  }
};

}  // namespace
}  // namespace smore

#define SMORE_KERNEL_FILE "neighbours/cpu/knn_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
void knn_unit_rows(const T* x, int64_t d, const double* square, T* unit, int64_t begin, int64_t end) {
  SMORE_DISPATCH(knn_unit_rows_at<T>)(x, d, square, unit, begin, end);
}

template <typename T>
void knn_offer_rows(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row, int64_t first_column,
                    int64_t columns, int64_t begin, int64_t end) {
  SMORE_DISPATCH(knn_offer_rows_at<T>)(lists, block, stride, first_row, first_column, columns, begin, end);
}

template <typename T>
void knn_offer_columns(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row, int64_t first_column,
                       int64_t rows, int64_t begin, int64_t end) {
  SMORE_DISPATCH(knn_offer_columns_at<T>)(lists, block, stride, first_row, first_column, rows, begin, end);
}

template <typename T>
void knn_finish(const KnnCandidates<T>& lists, const KnnTables<T>& tables, T* similarity, int64_t* index, int64_t begin,
                int64_t end) {
  SMORE_DISPATCH(knn_finish_at<T>)(lists, tables, similarity, index, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                                                          \
  template void knn_unit_rows<T>(const T*, int64_t, const double*, T*, int64_t, int64_t);                             \
  template void knn_offer_rows<T>(KnnCandidates<T>&, const T*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t); \
  template void knn_offer_columns<T>(KnnCandidates<T>&, const T*, int64_t, int64_t, int64_t, int64_t, int64_t,        \
                                     int64_t);                                                                        \
  template void knn_finish<T>(const KnnCandidates<T>&, const KnnTables<T>&, T*, int64_t*, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
