// What tests of emulated kernels share: arrays of exact size, outputs that start as garbage, every order of threads.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "emulation/cuda_emulation.h"
#include "harness.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace harness {

// Emulation is some 25 times slower there: tests leave out what differs in values but touches the same memory.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Memory as a kernel gets it: aligned to 256 bytes, and what lies behind its last element is out of bounds for
// AddressSanitizer. Without values it is an output: full of NaN (or -1).
template <typename T>
class Array {
 public:
  explicit Array(int64_t count) : count_(count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T), room = (bytes / kAlign + 1) * kAlign;
    data_ = static_cast<T*>(std::aligned_alloc(kAlign, room));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(static_cast<void*>(data_), 0xff, bytes);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(data_) + bytes, room - bytes);
#endif
  }
  explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) {
    if (!values.empty()) std::memcpy(static_cast<void*>(data_), values.data(), values.size() * sizeof(T));
  }
  Array(Array&& other) noexcept : count_(other.count_), data_(std::exchange(other.data_, nullptr)) {}
  ~Array() { std::free(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return count_; }
  T operator[](int64_t i) const { return data_[i]; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + count_); }

 private:
  static constexpr size_t kAlign = 256;
  int64_t count_;
  T* data_;
};

// Runs f under each order of blocks and threads. Results that f compares must not depend on it.
template <typename F>
void each_order(const F& f) {
  for (const emulation::Order order :
       {emulation::Order::forward, emulation::Order::reverse, emulation::Order::shuffled}) {
    if (kSanitized && order != emulation::Order::shuffled) continue;
    emulation::set_order(order);
    f();
  }
  emulation::set_order(emulation::Order::forward);
}

// Same bits, NaN included.
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace harness
