// Reads verdicts on index lists back, and remembers those on graphs.
#include "cuda/index_check.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>
#include <vector>

#include "common/check.h"
#include "cpu/csr_check.h"
#include "cuda/capture.h"
#include "cuda/index_check_kernel.h"

namespace smore::cuda {
namespace {

using at::Tensor;

// A tensor as it was when it was seen, without keeping it alive.
class Seen {
 public:
  explicit Seen(const Tensor& t)
      : tensor_(t.getIntrusivePtr()), data_(t.const_data_ptr()), size_(t.numel()), version_(t._version()) {}
  // A weak reference keeps the address from being given to another tensor. `t.data = other` raises no version. Writes
  // through `t.data` are seen by nothing that the host can look at: kernels keep within the lists whatever these hold.
  bool is(const Tensor& t) const {
    return tensor_._unsafe_get_target() == t.unsafeGetTensorImpl() && data_ == t.const_data_ptr() &&
           size_ == t.numel() && version_ == t._version();
  }
  bool gone() const { return tensor_.expired(); }

 private:
  c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> tensor_;
  const void* data_;
  int64_t size_, version_;
};

// Graphs that were found sound. The oldest is forgotten first.
class SoundGraphs {
 public:
  const RowLengths* find(const Tensor& rowptr, const Tensor& col, int64_t n_cols, bool sorted) const {
    for (const Entry& e : entries_) {
      if (e.n_cols <= n_cols && e.sorted >= sorted && e.rowptr.is(rowptr) && e.col.is(col)) return &e.lengths;
    }
    return nullptr;
  }
  void add(const Tensor& rowptr, const Tensor& col, int64_t n_cols, bool sorted, const RowLengths& lengths) {
    std::erase_if(entries_, [](const Entry& e) { return e.rowptr.gone() || e.col.gone(); });
    if (entries_.size() >= kMost) entries_.erase(entries_.begin());
    entries_.push_back({Seen(rowptr), Seen(col), n_cols, sorted, lengths});
  }

 private:
  static constexpr size_t kMost = 64;
  struct Entry {
    Seen rowptr, col;
    int64_t n_cols;
    bool sorted;
    RowLengths lengths;
  };
  std::vector<Entry> entries_;
};

std::mutex mutex;

// Never destroyed: at the end of the process, tensors may be gone before or after it.
SoundGraphs& sound_graphs() {
  static SoundGraphs* const graphs = new SoundGraphs;
  return *graphs;
}

template <typename I>
CsrVerdict judge(const Tensor& rowptr, const Tensor& col, int64_t n_cols, bool sorted) {
  static_assert(sizeof(CsrVerdict) == 3 * sizeof(int64_t));
  Tensor verdict = at::empty({3}, rowptr.options().dtype(at::kLong));
  check_rows<I>(rowptr.const_data_ptr<I>(), rowptr.size(0) - 1, col.const_data_ptr<I>(), col.size(0), n_cols, sorted,
                reinterpret_cast<CsrVerdict*>(verdict.mutable_data_ptr<int64_t>()), c10::cuda::getCurrentCUDAStream());
  verdict = verdict.cpu();
  const int64_t* values = verdict.const_data_ptr<int64_t>();
  return {values[0], values[1], values[2]};
}

// The CPU op's own check of the same lists says what is wrong.
template <typename I>
[[noreturn]] void complain(const char* op, const char* name, const Tensor& rowptr, const Tensor& col, int64_t n_cols,
                           bool sorted) {
  const Tensor rows = rowptr.cpu(), columns = col.cpu();
  const I* r = rows.const_data_ptr<I>();
  const int64_t n_rows = rows.size(0) - 1, n_edges = columns.size(0);
  if (sorted) {
    check_sorted_rows(op, name, r, n_rows, columns.const_data_ptr<I>(), n_edges, n_cols);
  } else {
    check_row_ends(op, r[0], r[n_rows], n_edges);
    check_entries(op, false, n_cols, *name == '\0' ? "col" : name);
  }
  TORCH_INTERNAL_ASSERT(false, "smore_ext::", op, ": ", name, " changed while it was checked");
}

}  // namespace

void check_ids_cuda(const char* op, const char* name, const Tensor& ids, int64_t limit) {
  const c10::cuda::CUDAGuard guard(ids.device());
  if (ids.numel() == 0 || capturing()) return;
  Tensor first = at::empty({1}, ids.options());
  find_bad_id(ids.const_data_ptr<int64_t>(), ids.numel(), limit, first.mutable_data_ptr<int64_t>(),
              c10::cuda::getCurrentCUDAStream());
  const int64_t position = first.item<int64_t>();
  if (position < kNothing) check_id(op, name, ids.view({-1})[position].item<int64_t>(), limit, position);
}

RowLengths check_csr_cuda(const char* op, const char* name, const Tensor& rowptr, const Tensor& col, int64_t n_cols,
                          bool sorted) {
  const c10::cuda::CUDAGuard guard(rowptr.device());
  const bool has_versions = !rowptr.is_inference() && !col.is_inference();
  if (has_versions) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const RowLengths* known = sound_graphs().find(rowptr, col, n_cols, sorted); known != nullptr) {
      return *known;
    }
  }
  if (capturing()) return {};
  const bool narrow = rowptr.scalar_type() == at::kInt;
  const CsrVerdict verdict =
      narrow ? judge<int32_t>(rowptr, col, n_cols, sorted) : judge<int64_t>(rowptr, col, n_cols, sorted);
  if (verdict.bad_row < kNothing) {
    narrow ? complain<int32_t>(op, name, rowptr, col, n_cols, sorted)
           : complain<int64_t>(op, name, rowptr, col, n_cols, sorted);
  }
  RowLengths lengths;
  lengths.longest = rowptr.size(0) > 1 ? -verdict.minus_longest : 0;
  if (verdict.shortest == lengths.longest) lengths.fixed = lengths.longest;
  if (has_versions) {
    const std::lock_guard<std::mutex> lock(mutex);
    sound_graphs().add(rowptr, col, n_cols, sorted, lengths);
  }
  return lengths;
}

}  // namespace smore::cuda
