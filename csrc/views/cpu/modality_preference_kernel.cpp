#include "views/modality_preference_kernel.h"

#include <vector>

#include "cpu/philox_block.h"

#define SMORE_KERNEL_FILE "views/cpu/modality_preference_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {
namespace {

static_assert(kDropoutLanes == kPhiloxBlock && kDropoutGroup == 4 * kPhiloxBlock);

constexpr int64_t kPadding = 16;  // elements of the widest register

// The scratch memory of the rows that one thread takes, one row after the other.
template <typename T>
struct Scratch {
  explicit Scratch(const Preference<T>& of)
      : padded(of.d + kPadding), memory(static_cast<size_t>(of.width() + 2 * padded)), factors(memory.data()) {}
  int64_t padded;
  std::vector<T> memory;
  T* factors;
  T* row(int64_t which) { return factors + static_cast<int64_t>(memory.size()) - (which + 1) * padded; }
};

}  // namespace

template <typename T>
void modality_preference(const PreferenceForward<T>& job, Range rows) {
  Scratch<T> scratch(job.of);
  SMORE_DISPATCH(preference_at<T>)(job, scratch.factors, scratch.row(0), scratch.row(1), rows);
}

template <typename T>
void modality_preference_backward(const PreferenceBackward<T>& job, Range rows) {
  Scratch<T> scratch(job.of);
  SMORE_DISPATCH(preference_backward_at<T>)(job, scratch.factors, scratch.row(0), scratch.row(1), rows);
}

template void modality_preference<float>(const PreferenceForward<float>&, Range);
template void modality_preference<double>(const PreferenceForward<double>&, Range);
template void modality_preference_backward<float>(const PreferenceBackward<float>&, Range);
template void modality_preference_backward<double>(const PreferenceBackward<double>&, Range);

}  // namespace smore
