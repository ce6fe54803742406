// What modality_preference reads and writes, and its kernels on each device. No torch here.
#pragma once

#include <cstdint>

#include "common/dropout_words.h"
#include "common/place.h"

namespace smore {

// n rows of M modalities, the fused view last.
template <typename T>
struct Preference {
  const T* gates;      // [n, (M + 1) d], before the sigmoid
  const T* attention;  // [M, n, d], before the softmax over d
  const T* views;      // [n, (M + 1) d]
  int64_t n, modalities, d;
  DropoutRule<T> dropout;  // of the gates; its threshold is 0 where nothing is dropped

  SMORE_HOST_DEVICE int64_t width() const { return (modalities + 1) * d; }
  SMORE_HOST_DEVICE T share() const { return T(1) / static_cast<T>(modalities + 1); }
};

template <typename T>
struct PreferenceForward {
  Preference<T> of;
  T* side;  // [n, d]
};

template <typename T>
struct PreferenceBackward {
  Preference<T> of;
  const T* grad;      // [n, d]
  T* grad_gates;      // [n, (M + 1) d]
  T* grad_attention;  // [M, n, d]
  T* grad_views;      // [n, (M + 1) d]
};

// A Range is one of rows.
template <typename T>
void modality_preference(const PreferenceForward<T>& job, Range rows);
template <typename T>
void modality_preference_backward(const PreferenceBackward<T>& job, Range rows);
template <typename T>
void modality_preference(const PreferenceForward<T>& job, CudaStream stream);
template <typename T>
void modality_preference_backward(const PreferenceBackward<T>& job, CudaStream stream);

}  // namespace smore
