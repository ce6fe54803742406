// CUDA's execution model on the host, for tests: the sources in csrc/cuda compile against this instead of the CUDA
// toolkit, and their kernels run with their own launch geometry.
//
// One block runs at a time. Each of its threads is a fiber; a thread goes on until it reaches a barrier or a warp
// collective, which must be reached by all threads that CUDA requires: else the launch throws and says who waits
// where. Shared memory is allocated anew for every block, filled with 0xff (NaN, -1), and of the exact size, so that
// AddressSanitizer sees an access beyond it. The order in which blocks and threads run is a setting: results that
// depend on it show a missing barrier or a race between blocks.
//
// Not emulated: memory consistency (a missing fence), bank conflicts, time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define SMORE_CONCAT_(a, b) a##b
#define SMORE_CONCAT(a, b) SMORE_CONCAT_(a, b)
#define SMORE_SHARED(type, name, extent)                    \
  static const char SMORE_CONCAT(name, _place_in_code) = 0; \
  auto& name = ::emulation::shared<type extent>(&SMORE_CONCAT(name, _place_in_code))
#define SMORE_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::emulation::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};

#define SMORE_VECTOR_TYPE(T, name, size)                     \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };         \
  struct alignas(size) name##4 { T x, y, z, w; };            \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SMORE_VECTOR_TYPE(float, float, 16)
SMORE_VECTOR_TYPE(double, double, 16)
#undef SMORE_VECTOR_TYPE

typedef struct EmulatedStream* cudaStream_t;
enum cudaError_t { cudaSuccess = 0 };
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

namespace emulation {

enum class Order { forward, reverse, shuffled };
void set_order(Order order);

// Runs body once for every thread of the grid. Throws std::runtime_error, with the kernel's name, on a barrier or a
// warp collective that not all threads reach, on reading a lane that does not take part, and on __trap().
void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

struct Position {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
const Position& position();

void* shared_bytes(const void* key, size_t bytes);
void* dynamic_shared();
void block_barrier();
[[noreturn]] void trap();

// A collective of the lanes in `mask`. `source` is the lane whose value this one receives.
enum class Collective { sync, shuffle, ballot };
uint64_t collective(Collective kind, unsigned mask, uint64_t value, int source);
int lane();

template <typename T>
T& shared(const void* key) {
  return *static_cast<T*>(shared_bytes(key, sizeof(T)));
}

template <typename T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = collective(Collective::shuffle, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulation

#define threadIdx (::emulation::position().thread)
#define blockIdx (::emulation::position().block)
#define blockDim (::emulation::position().block_size)
#define gridDim (::emulation::position().grid_size)

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::collective(emulation::Collective::sync, mask, 0, 0); }
[[noreturn]] inline void __trap() { emulation::trap(); }

// Sources of the shuffles, within groups of `width` lanes, as the CUDA C++ Programming Guide defines them.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = emulation::lane(), first = lane / width * width;
  return emulation::shuffle(mask, value, first + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = emulation::lane(), other = lane ^ bits;
  return emulation::shuffle(mask, value, other / width > lane / width ? lane : other);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const int lane = emulation::lane(), other = lane + static_cast<int>(step);
  return emulation::shuffle(mask, value, other / width != lane / width ? lane : other);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(emulation::collective(emulation::Collective::ballot, mask, predicate != 0, 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// One thread runs at a time, so atomics are plain operations.
template <typename T>
T atomicAdd(T* at, T value) {
  static_assert(std::is_integral_v<T>, "atomics in floating point add in no fixed order");
  const T old = *at;
  *at = old + value;
  return old;
}
template <typename T>
T atomicMin(T* at, T value) {
  const T old = *at;
  *at = std::min(old, value);
  return old;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T old = *at;
  *at = std::max(old, value);
  return old;
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcs(const T* from) {
  return *from;
}
template <typename T>
void __stcs(T* to, T value) {
  *to = value;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline void sincospi(double x, double* sine, double* cosine) {
  const double angle = 3.14159265358979323846 * x;
  *sine = std::sin(angle), *cosine = std::cos(angle);
}
// Products and sums that are not contracted; the emulation is compiled with -ffp-contract=off.
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
using std::max;
using std::min;
