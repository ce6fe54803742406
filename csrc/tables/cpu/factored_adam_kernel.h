// Adam for a parameter whose gradient is a product of two thin factors, which is never formed. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// Rows are worked on in blocks of this many.
inline constexpr int64_t kAdamRows = 8;

template <typename T>
struct FactoredAdam {
  T* param;            // [n, width]
  T* average;          // [n, width]: running mean of the gradient
  T* square;           // [n, width]: running mean of its square
  const T* grad_rows;  // [n, d]: the gradient of param is grad_rows @ factor
  const T* panels;     // factor [d, width], packed by adam_pack
  int64_t n, width, d;
  double step_size;  // lr / (1 - beta1^t)
  double beta1, beta2;
  double root_correction;  // sqrt(1 - beta2^t)
  double eps;
};

template <typename T>
int64_t adam_panels(int64_t width);
template <typename T>
int64_t adam_panel_elements(int64_t d);
// Packs factor [d, width] into register panels [begin, end).
template <typename T>
void adam_pack(const T* factor, int64_t d, int64_t width, T* panels, int64_t begin, int64_t end);

// Updates the row blocks [begin, end) in place.
template <typename T>
void factored_adam(const FactoredAdam<T>& job, int64_t begin, int64_t end);

}  // namespace smore
