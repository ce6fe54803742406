// The one way in which kernels are launched: on a named stream, with its errors raised.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/device.cuh"

namespace smore::cuda {

struct Launch {
  dim3 grid;
  dim3 block;
  cudaStream_t stream = nullptr;
  size_t shared = 0;  // bytes of dynamic shared memory
};

template <typename A, typename B>
constexpr auto ceil_div(A n, B step) {
  return (n + step - 1) / step;
}

// Blocks of a one-dimensional grid for n items, `each` a block.
inline unsigned blocks_for(int64_t n, int64_t each) {
  const int64_t blocks = ceil_div(n, each);
  if (blocks > INT32_MAX) throw std::length_error("smore_ext: a CUDA grid of " + std::to_string(blocks) + " blocks");
  return static_cast<unsigned>(blocks);
}

inline void check(const char* what, cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("smore_ext: ") + what + ": " + cudaGetErrorString(error));
}

// Use through SMORE_LAUNCH. An empty grid is no launch.
template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), const Launch& at, A... args) {
  if (at.grid.x == 0 || at.grid.y == 0 || at.grid.z == 0) return;
#ifdef SMORE_CUDA_EMULATED
  emulation::launch(name, at.grid, at.block, at.shared, [&] { kernel(static_cast<P>(args)...); });
#else
  if (at.shared > 48 * 1024) {  // more than a kernel gets without asking
    check(name, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(at.shared)));
  }
  // clang-format off: it would take the brackets apart
  kernel<<<at.grid, at.block, at.shared, at.stream>>>(static_cast<P>(args)...);
  // clang-format on
  check(name, cudaGetLastError());
#endif
}

}  // namespace smore::cuda

// SMORE_LAUNCH((kernel<T, 64>), (Launch{grid, block, stream}), arguments...)
#define SMORE_LAUNCH(kernel, at, ...) ::smore::cuda::launch(#kernel, kernel, at, __VA_ARGS__)
