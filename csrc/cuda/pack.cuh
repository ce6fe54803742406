// Several neighbouring elements that are loaded and stored as one: 16 bytes where alignment allows, else one element.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
  T at[N];
};

template <typename T>
inline constexpr int kFullPack = 16 / static_cast<int>(sizeof(T));

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <typename T, int N>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& values) {
  *reinterpret_cast<Pack<T, N>*>(to) = values;
}

// Rows of this width, one behind the other, may be read and written in packs of 16 bytes.
template <typename T, typename... P>
bool packs_fit(int64_t width, const P*... rows) {
  return width % kFullPack<T> == 0 && ((reinterpret_cast<uintptr_t>(rows) % 16 == 0) && ...);
}

}  // namespace smore::cuda
