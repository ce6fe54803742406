#include "cuda/cufft_plans.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cufft.h>

#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/module_part.h"
#include "cuda/capture.h"

namespace smore::cuda {
namespace {

const char* name_of(cufftResult result) {
  switch (result) {
#define SMORE_CUFFT_NAME(name) \
  case name:                   \
    return #name;
    SMORE_CUFFT_NAME(CUFFT_SUCCESS)
    SMORE_CUFFT_NAME(CUFFT_INVALID_PLAN)
    SMORE_CUFFT_NAME(CUFFT_ALLOC_FAILED)
    SMORE_CUFFT_NAME(CUFFT_INVALID_TYPE)
    SMORE_CUFFT_NAME(CUFFT_INVALID_VALUE)
    SMORE_CUFFT_NAME(CUFFT_INTERNAL_ERROR)
    SMORE_CUFFT_NAME(CUFFT_EXEC_FAILED)
    SMORE_CUFFT_NAME(CUFFT_SETUP_FAILED)
    SMORE_CUFFT_NAME(CUFFT_INVALID_SIZE)
    SMORE_CUFFT_NAME(CUFFT_UNALIGNED_DATA)
    SMORE_CUFFT_NAME(CUFFT_INVALID_DEVICE)
    SMORE_CUFFT_NAME(CUFFT_NO_WORKSPACE)
    SMORE_CUFFT_NAME(CUFFT_NOT_IMPLEMENTED)
    SMORE_CUFFT_NAME(CUFFT_NOT_SUPPORTED)
#undef SMORE_CUFFT_NAME
    default:
      return "an unknown error";
  }
}

void check(const char* op, const char* call, cufftResult result) {
  TORCH_CHECK(result == CUFFT_SUCCESS, "smore_ext::", op, ": ", call, " failed with ", name_of(result), " (",
              static_cast<int>(result), ")");
}

#define SMORE_CUFFT(op, call) check(op, #call, call)

struct Key {
  int device;
  cufftType type;
  int64_t d, n;
  bool operator==(const Key&) const = default;
};

class Plan {
 public:
  Plan(const char* op, const Key& key) : type_(key.type) {
    SMORE_CUFFT(op, cufftCreate(&handle_));
    try {
      SMORE_CUFFT(op, cufftSetAutoAllocation(handle_, 0));
      long long width = key.d;
      SMORE_CUFFT(op,
                  cufftMakePlanMany64(handle_, 1, &width, nullptr, 1, 0, nullptr, 1, 0, key.type, key.n, &workspace_));
    } catch (...) {
      cufftDestroy(handle_);
      throw;
    }
  }
  ~Plan() { cufftDestroy(handle_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run(const char* op, void* from, void* to) {
    const at::TensorOptions bytes = at::TensorOptions().dtype(at::kByte).device(at::kCUDA, c10::cuda::current_device());
    const at::Tensor workspace = at::empty({static_cast<int64_t>(workspace_)}, bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    SMORE_CUFFT(op, cufftSetStream(handle_, c10::cuda::getCurrentCUDAStream()));
    SMORE_CUFFT(op, cufftSetWorkArea(handle_, workspace.mutable_data_ptr()));
    switch (type_) {
      case CUFFT_R2C:
        return SMORE_CUFFT(op, cufftExecR2C(handle_, static_cast<float*>(from), static_cast<cufftComplex*>(to)));
      case CUFFT_C2R:
        return SMORE_CUFFT(op, cufftExecC2R(handle_, static_cast<cufftComplex*>(from), static_cast<float*>(to)));
      case CUFFT_D2Z:
        return SMORE_CUFFT(op, cufftExecD2Z(handle_, static_cast<double*>(from), static_cast<cufftDoubleComplex*>(to)));
      case CUFFT_Z2D:
        return SMORE_CUFFT(op, cufftExecZ2D(handle_, static_cast<cufftDoubleComplex*>(from), static_cast<double*>(to)));
      default:
        check(op, "choosing the transform", CUFFT_INVALID_TYPE);
    }
  }

 private:
  cufftType type_;
  cufftHandle handle_{};
  size_t workspace_ = 0;
  std::mutex mutex_;
};

// The plans last used, the latest first.
class PlanCache {
 public:
  std::shared_ptr<Plan> get(const char* op, const Key& key) {
    const bool in_capture = capturing();
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = plans_.begin(); at != plans_.end(); ++at) {
      if (!(at->first == key)) continue;
      plans_.splice(plans_.begin(), plans_, at);
      if (in_capture) keep(at->second);
      return at->second;
    }
    TORCH_CHECK(!in_capture, "smore_ext::", op, ": no cuFFT plan for ", key.n, " rows of ", key.d,
                " yet, and none can be made while a CUDA graph is captured: run the op once before capturing");
    auto plan = std::make_shared<Plan>(op, key);
    if (max_size_ > 0) plans_.emplace_front(key, plan);
    trim();
    return plan;
  }

  int64_t size() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int64_t>(plans_.size());
  }
  int64_t max_size() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return max_size_;
  }
  void set_max_size(int64_t plans) {
    const std::lock_guard<std::mutex> lock(mutex_);
    max_size_ = plans;
    trim();
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    plans_.clear();
  }

 private:
  void trim() {
    while (static_cast<int64_t>(plans_.size()) > max_size_) plans_.pop_back();
  }
  void keep(const std::shared_ptr<Plan>& plan) {
    for (const auto& kept : captured_) {
      if (kept == plan) return;
    }
    captured_.push_back(plan);
  }

  std::mutex mutex_;
  std::list<std::pair<Key, std::shared_ptr<Plan>>> plans_;
  std::vector<std::shared_ptr<Plan>> captured_;  // graphs run what these own, whatever becomes of the list
  int64_t max_size_ = 64;
};

PlanCache& cache() {
  static auto* const plans = new PlanCache;  // never destroyed: at exit the driver may be gone before it
  return *plans;
}

template <typename T>
constexpr cufftType kToSpectra = std::is_same_v<T, float> ? CUFFT_R2C : CUFFT_D2Z;
template <typename T>
constexpr cufftType kToRows = std::is_same_v<T, float> ? CUFFT_C2R : CUFFT_Z2D;

}  // namespace

template <typename T>
void rows_to_spectra(const char* op, int64_t n, int64_t d, const T* rows, T* spectra) {
  const Key key{c10::cuda::current_device(), kToSpectra<T>, d, n};
  cache().get(op, key)->run(op, const_cast<T*>(rows), spectra);  // leaves its input alone
}

template <typename T>
void spectra_to_rows(const char* op, int64_t n, int64_t d, T* spectra, T* rows) {
  const Key key{c10::cuda::current_device(), kToRows<T>, d, n};
  cache().get(op, key)->run(op, spectra, rows);
}

template void rows_to_spectra(const char*, int64_t, int64_t, const float*, float*);
template void rows_to_spectra(const char*, int64_t, int64_t, const double*, double*);
template void spectra_to_rows(const char*, int64_t, int64_t, float*, float*);
template void spectra_to_rows(const char*, int64_t, int64_t, double*, double*);

namespace {

void set_max_size(int64_t plans) {
  if (plans < 0)
    throw std::invalid_argument("smore_ext: the cuFFT plan cache takes 0 plans or more, got " + std::to_string(plans));
  cache().set_max_size(plans);
}

const ModulePart part([](pybind11::module_& m) {
  m.def("cufft_plan_cache_size", [] { return cache().size(); }, "Number of cuFFT plans kept.");
  m.def("cufft_plan_cache_max_size", [] { return cache().max_size(); }, "How many are kept at most.");
  m.def("set_cufft_plan_cache_max_size", &set_max_size, pybind11::arg("plans"),
        "Keep at most so many cuFFT plans; 0 makes one for each use.");
  m.def("clear_cufft_plan_cache", [] { cache().clear(); }, "Let go of all cuFFT plans.");
});

}  // namespace

}  // namespace smore::cuda
