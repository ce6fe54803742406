// Matrix products of torch in IEEE float32 for as long as an object of this class lives.
#pragma once

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include <optional>

namespace smore {

// Where candidates are chosen by a margin for float32 rounding, products in bfloat16 or TF32, which a user may have
// allowed globally, would lose some. torch has two ways of allowing them, one setting for all and one a backend, and
// each may have been used.
class IeeeProducts {
 public:
  IeeeProducts() : before_(setting()), cuda_(precision(kCuda)), mkldnn_(precision(kMkldnn)) {
    if (before_.has_value()) at::globalContext().setFloat32MatmulPrecision("highest");
    for (const at::Float32Backend backend : {kCuda, kMkldnn}) {
      const at::Float32Precision now = precision(backend);
      if (now == at::Float32Precision::TF32 || now == at::Float32Precision::BF16) {
        restore(backend, at::Float32Precision::IEEE);
      }
    }
  }
  ~IeeeProducts() {
    if (before_.has_value()) {
      at::globalContext().setFloat32MatmulPrecision(*before_ == at::Float32MatmulPrecision::HIGHEST ? "highest"
                                                    : *before_ == at::Float32MatmulPrecision::HIGH  ? "high"
                                                                                                    : "medium");
    }
    restore(kCuda, cuda_);
    restore(kMkldnn, mkldnn_);
  }
  IeeeProducts(const IeeeProducts&) = delete;
  IeeeProducts& operator=(const IeeeProducts&) = delete;

 private:
  static constexpr at::Float32Backend kCuda = at::Float32Backend::CUDA, kMkldnn = at::Float32Backend::MKLDNN;

  // None: the backends are set to what the one setting cannot say; asking for it is then an error of torch.
  static std::optional<at::Float32MatmulPrecision> setting() {
    try {
      return at::globalContext().float32MatmulPrecision();
    } catch (const c10::Error&) {
      return std::nullopt;
    }
  }
  static at::Float32Precision precision(at::Float32Backend backend) {
    return at::globalContext().float32Precision(backend, at::Float32Op::MATMUL);
  }
  static void restore(at::Float32Backend backend, at::Float32Precision wanted) {
    if (precision(backend) == wanted) return;
    at::globalContext().setFloat32Precision(backend, at::Float32Op::MATMUL, wanted);
  }

  std::optional<at::Float32MatmulPrecision> before_;
  at::Float32Precision cuda_, mkldnn_;
};

}  // namespace smore
