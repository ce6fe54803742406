// The emulation itself: it must see what it is there to see.
#include "cuda/launch.cuh"
#include "cuda_harness.h"

namespace {

using smore::cuda::Launch;

__global__ void reverse_block(const int* from, int* to) {
  SMORE_SHARED(int, tile, [64]);
  const unsigned t = threadIdx.x, at = blockIdx.x * 64;
  tile[t] = from[at + t];
  __syncthreads();
  to[at + t] = tile[63 - t];
}

__global__ void without_barrier(const int* from, int* to) {
  SMORE_SHARED(int, tile, [64]);
  tile[threadIdx.x] = from[threadIdx.x];
  to[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void diverging_barrier(int* to) {
  if (threadIdx.x == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  to[threadIdx.x] = 1;
}

__global__ void warp_sum(const int* from, int* to) {
  int sum = from[threadIdx.x];
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
  const unsigned odd = __ballot_sync(0xffffffffu, static_cast<int>(threadIdx.x & 1u));
  to[threadIdx.x] =
      odd == 0xaaaaaaaau ? sum + 1000 * __shfl_down_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1, 8) : -7;
}

__global__ void absent_lane(int* to) {
  if (threadIdx.x < 16) to[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}

__global__ void trapping(int* to) {
  if (threadIdx.x == 3) __trap();
  __syncthreads();
  to[threadIdx.x] = 1;
}

__global__ void uninitialised(float* to) {
  SMORE_SHARED(float, tile, [4]);
  SMORE_DYNAMIC_SHARED(float, more);
  if (blockIdx.x == 0) tile[threadIdx.x] = more[threadIdx.x] = 1;
  to[blockIdx.x * 4 + threadIdx.x] = tile[threadIdx.x] + more[threadIdx.x];
}

template <typename F>
bool throws(const F& f, const char* text) {
  try {
    f();
  } catch (const std::runtime_error& error) {
    return std::strstr(error.what(), text) != nullptr;
  }
  return false;
}

std::vector<int> numbers(int count) {
  std::vector<int> values;
  for (int i = 0; i < count; ++i) values.push_back(i);
  return values;
}

}  // namespace

TEST(barriers_and_shared_memory_work_in_every_order) {
  harness::each_order([] {
    const harness::Array<int> from(numbers(192));
    harness::Array<int> to(192);
    SMORE_LAUNCH(reverse_block, (Launch{3, 64}), from.data(), to.data());
    for (int i = 0; i < 192; ++i) CHECK(to[i] == i / 64 * 64 + 63 - i % 64);
  });
}

TEST(a_missing_barrier_shows) {
  const harness::Array<int> from(numbers(64));
  harness::Array<int> forward(64), reverse(64);
  SMORE_LAUNCH(without_barrier, (Launch{1, 64}), from.data(), forward.data());
  emulation::set_order(emulation::Order::reverse);
  SMORE_LAUNCH(without_barrier, (Launch{1, 64}), from.data(), reverse.data());
  emulation::set_order(emulation::Order::forward);
  CHECK(forward.values() != reverse.values());
  CHECK(forward[0] == -1);
}

TEST(waiting_for_ever_is_an_error) {
  harness::Array<int> to(64);
  CHECK(throws([&] { SMORE_LAUNCH(diverging_barrier, (Launch{1, 64}), to.data()); }, "wait for ever"));
}

TEST(warp_collectives) {
  const harness::Array<int> from(numbers(32));
  harness::Array<int> to(32);
  SMORE_LAUNCH(warp_sum, (Launch{1, 32}), from.data(), to.data());
  for (int i = 0; i < 32; ++i) CHECK(to[i] == 496 + 1000 * (i % 8 == 7 ? i : i + 1));
}

TEST(reading_an_absent_lane_is_an_error) {
  harness::Array<int> to(32);
  CHECK(throws([&] { SMORE_LAUNCH(absent_lane, (Launch{1, 32}), to.data()); }, "does not take part"));
}

TEST(a_trap_ends_the_launch_and_not_the_program) {
  harness::Array<int> to(32);
  CHECK(throws([&] { SMORE_LAUNCH(trapping, (Launch{1, 32}), to.data()); }, "__trap()"));
  CHECK(to[0] == -1);
  const harness::Array<int> from(numbers(32));
  SMORE_LAUNCH(warp_sum, (Launch{1, 32}), from.data(), to.data());
  CHECK(to[0] == 1496);
}

TEST(shared_memory_starts_as_nan_in_every_block) {
  harness::Array<float> to(8);
  SMORE_LAUNCH(uninitialised, (Launch{2, 4, nullptr, 16}), to.data());
  for (int i = 0; i < 4; ++i) CHECK(to[i] == 2 && std::isnan(to[4 + i]));
}
