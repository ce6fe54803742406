// Transforms of real rows on the chip: each row by d / 16 threads of one warp, with 8 complex numbers a thread.
//
// A row of d real numbers is read as h = d/2 complex ones (even elements real, odd ones imaginary), transformed, and
// the spectrum of the real row is taken from bins k and h - k. So no row shares a transform with another one: neither
// sizes nor NaN of one row reach its neighbours.
//
// The transform decimates in frequency: after stages of radices r1 .. rs an element is named by K < L = r1 .. rs, the
// low digits of its bin, and n < h/L, what is still to be transformed. The last stage has radix 4 and gives thread t
// the bins K + 2 T i of K = t and K = 2 T - t (thread 0: 0 and T), so that k and h - k meet in one thread. Between
// stages elements change threads through shared memory; the distances below make those accesses free of bank conflicts
// in float (found by trying all).
#pragma once

#include "cuda/complex.cuh"

namespace smore::cuda {

template <typename T, int D>
class RowFft {
 public:
  static constexpr int kHalf = D / 2;
  static constexpr int kThreads = kHalf / 8;      // of a row
  static constexpr int kRows = kWarp / kThreads;  // of a warp
  static constexpr int kBins = 9;                 // of a thread; only thread 0 has the last one
  static_assert(D == 16 || D == 32 || D == 64 || D == 128 || D == 256 || D == 512);

 private:
  static constexpr int kFirst = kHalf == 16 || kHalf == 64 ? 4 : 8;  // radices; the last one is 4 (none for h = 8)
  static constexpr int kMiddle = kHalf == 256 ? 8 : kHalf >= 64 ? 4 : 1;
  static constexpr int kFirstTwiddles = kHalf == 8 ? 0 : 8 / kFirst * (kFirst - 1);
  static constexpr int kMiddleTwiddles = kMiddle == 1 ? 0 : 8 / kMiddle * (kMiddle - 1);
  static constexpr int kTwiddles = kFirstTwiddles + kMiddleTwiddles + 4;

  // Distances in the exchange before the last stage, (K, n) at K + n * kLastStep, and in the one before the middle
  // stage, at K * kMiddleStep + n; rows of a warp are kLastRow and kMiddleRow apart.
  static constexpr int kLastStep = kHalf / 4 + (kHalf >= 128 ? 8 : kHalf == 64 ? 4 : 1);
  static constexpr int kLastRow = kHalf == 16 ? 22 : kHalf == 32 ? 36 : kHalf == 64 ? 88 : kHalf == 128 ? 152 : 280;
  static constexpr int kMiddleStep = kHalf / kFirst + 2;
  static constexpr int kMiddleRow = kHalf == 64 ? 72 : kHalf == 128 ? 142 : 272;

  // Where a row's threads together read less than a sector of memory (32 bytes), the warp reads packets of 16 bytes in
  // the order of memory and hands them over through shared memory.
  static constexpr bool kStaged = kThreads * sizeof(Complex<T>) < 32;
  static constexpr int kStagedRow = kHalf + 2;
  static constexpr int kPacket = kStaged ? 16 / sizeof(Complex<T>) : 1;  // complex numbers
  struct alignas(kPacket * sizeof(Complex<T>)) Packet {
    Complex<T> part[kPacket];
  };

 public:
  static constexpr int kVectorBytes = sizeof(Packet);  // alignment of rows that `vector` stands for
  static constexpr int kTableRow = kTwiddles | 1;      // odd: threads read different banks
  static constexpr int kTable = kThreads * kTableRow;  // complex numbers of a block's table of twiddle factors
  static constexpr int kSpace = kHalf == 8 ? 320 : kHalf == 32 ? 288 : 352;  // ... of a warp's exchange

  // Bin i of thread t.
  static __device__ __forceinline__ int bin(int t, int i) {
    if (i == 8) return kHalf / 2;
    const int j = i % 4, low = t > 0 ? t + 2 * kThreads * j : (j < 2 ? 2 * j : 2 * j + 1) * kThreads;
    return i < 4 ? low : kHalf - low;
  }

  // Element i of a block's table.
  static __device__ Complex<T> twiddle(int i) {
    const int t = i / kTableRow;
    int j = i % kTableRow;
    if constexpr (kFirstTwiddles > 0) {
      if (j < kFirstTwiddles) return root<T>((t + kThreads * (j / (kFirst - 1))) * (j % (kFirst - 1) + 1), kHalf);
      j -= kFirstTwiddles;
    }
    if constexpr (kMiddleTwiddles > 0) {
      if (j < kMiddleTwiddles) {
        const int n = (t + kThreads * (j / (kMiddle - 1))) / kFirst;
        return root<T>(n * (j % (kMiddle - 1) + 1), kHalf / kFirst);
      }
      j -= kMiddleTwiddles;
    }
    return j < 4 ? root<T>(bin(t, j) + kHalf / 2, D) : Complex<T>{0, 0};  // -i e^(-2 pi i k / d)
  }

  // `table` is the block's, filled by twiddle(); `space` this warp's.
  __device__ RowFft(const Complex<T>* table, Complex<T>* space)
      : lane_(static_cast<int>(threadIdx.x % kWarp)), space_(space), twiddles_(table + thread() * kTableRow) {}

  __device__ __forceinline__ int thread() const { return lane_ & (kThreads - 1); }
  __device__ __forceinline__ int row() const { return static_cast<int>(static_cast<unsigned>(lane_) / kThreads); }

  // From memory to registers, for arrange(). The warp's rows start at `from`, `valid` of them exist; others are zero.
  __device__ __forceinline__ void fetch(const T* from, int valid, bool vector, Complex<T> (&raw)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) raw[i] = {0, 0};
    if (vector) {
      const Packet* packets = reinterpret_cast<const Packet*>(from) + first_packet();
#pragma unroll
      for (int p = 0; p < kPackets; ++p) {
        if (row_of(p) >= valid) continue;
        const Packet packet = packets[p * kPacketStep];
#pragma unroll
        for (int c = 0; c < kPacket; ++c) raw[p * kPacket + c] = packet.part[c];
      }
    } else {
      const T* numbers = from + 2 * kPacket * first_packet();
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = 2 * (i / kPacket * kPacket * kPacketStep + i % kPacket);
        if (row_of(i / kPacket) < valid) raw[i] = {numbers[at], numbers[at + 1]};
      }
    }
  }

  // What fetch() brought as elements t + T i of the row.
  __device__ __forceinline__ void arrange(Complex<T> (&z)[8]) const {
    if constexpr (kStaged) {
#pragma unroll
      for (int p = 0; p < kPackets; ++p) *staged_packet(p) = packet_of(z, p);
      __syncwarp();
#pragma unroll
      for (int i = 0; i < 8; ++i) z[i] = space_[row() * kStagedRow + thread() + kThreads * i];
      __syncwarp();
    }
  }

  __device__ __forceinline__ void store(Complex<T> (&z)[8], T* to, int valid, bool vector) const {
    if constexpr (kStaged) {
#pragma unroll
      for (int i = 0; i < 8; ++i) space_[row() * kStagedRow + thread() + kThreads * i] = z[i];
      __syncwarp();
#pragma unroll
      for (int p = 0; p < kPackets; ++p) {
        const Packet packet = *staged_packet(p);
#pragma unroll
        for (int c = 0; c < kPacket; ++c) z[p * kPacket + c] = packet.part[c];
      }
      __syncwarp();
    }
    if (vector) {
      Packet* packets = reinterpret_cast<Packet*>(to) + first_packet();
#pragma unroll
      for (int p = 0; p < kPackets; ++p) {
        if (row_of(p) < valid) packets[p * kPacketStep] = packet_of(z, p);
      }
    } else {
      T* numbers = to + 2 * kPacket * first_packet();
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = 2 * (i / kPacket * kPacket * kPacketStep + i % kPacket);
        if (row_of(i / kPacket) < valid) numbers[at] = z[i].re, numbers[at + 1] = z[i].im;
      }
    }
  }

  // Twice the spectrum of a row, without scale.
  __device__ __forceinline__ void forward(Complex<T> (&z)[8], Complex<T> (&bins)[kBins]) const {
    const int t = thread();
    if constexpr (kHalf == 8) {
      transform8<false>(z);
      const Complex<T> natural[8] = {z[0], z[2], z[4], z[6], z[1], z[3], z[5], z[7]};
      return split(natural, bins);
    }
    first_stage<false>(z);
    if constexpr (kMiddle > 1) {
#pragma unroll
      for (int b = 0; b < 8 / kFirst; ++b) {
#pragma unroll
        for (int k = 0; k < kFirst; ++k) *middle(k, t + kThreads * b) = z[b + 8 / kFirst * k];
      }
      __syncwarp();
#pragma unroll
      for (int i = 0; i < 8; ++i) z[i] = *middle(middle_low(i), middle_rest(i) + 4 * (i / (8 / kMiddle)));
      __syncwarp();
      middle_stage<false>(z);
#pragma unroll
      for (int i = 0; i < 8; ++i) *last(middle_low(i) + kFirst * (i / (8 / kMiddle)), middle_rest(i)) = z[i];
    } else {
#pragma unroll
      for (int b = 0; b < 8 / kFirst; ++b) {
#pragma unroll
        for (int k = 0; k < kFirst; ++k) *last(k, t + kThreads * b) = z[b + 8 / kFirst * k];
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; ++i) z[i] = *last(last_low(i / 4), i % 4);
    __syncwarp();
    transform4<false>(z[0], z[1], z[2], z[3]);
    transform4<false>(z[4], z[5], z[6], z[7]);
    split(z, bins);
  }

  // The row of a spectrum, times d.
  __device__ __forceinline__ void inverse(const Complex<T> (&bins)[kBins], Complex<T> (&z)[8]) const {
    const int t = thread();
    join(bins, z);
    if constexpr (kHalf == 8) {
      const Complex<T> natural[8] = {z[0], z[4], z[1], z[5], z[2], z[6], z[3], z[7]};
#pragma unroll
      for (int i = 0; i < 8; ++i) z[i] = natural[i];
      return transform8<true>(z);
    }
    transform4<true>(z[0], z[1], z[2], z[3]);
    transform4<true>(z[4], z[5], z[6], z[7]);
#pragma unroll
    for (int i = 0; i < 8; ++i) *last(last_low(i / 4), i % 4) = z[i];
    __syncwarp();
    if constexpr (kMiddle > 1) {
#pragma unroll
      for (int i = 0; i < 8; ++i) z[i] = *last(middle_low(i) + kFirst * (i / (8 / kMiddle)), middle_rest(i));
      __syncwarp();
      middle_stage<true>(z);
#pragma unroll
      for (int i = 0; i < 8; ++i) *middle(middle_low(i), middle_rest(i) + 4 * (i / (8 / kMiddle))) = z[i];
      __syncwarp();
#pragma unroll
      for (int b = 0; b < 8 / kFirst; ++b) {
#pragma unroll
        for (int k = 0; k < kFirst; ++k) z[b + 8 / kFirst * k] = *middle(k, t + kThreads * b);
      }
    } else {
#pragma unroll
      for (int b = 0; b < 8 / kFirst; ++b) {
#pragma unroll
        for (int k = 0; k < kFirst; ++k) z[b + 8 / kFirst * k] = *last(k, t + kThreads * b);
      }
    }
    __syncwarp();
    first_stage<true>(z);
  }

 private:
  // Packets of a warp's rows: this lane has first_packet(), and those kPacketStep apart.
  static constexpr int kPackets = 8 / kPacket, kPacketStep = kStaged ? kWarp : kThreads;
  __device__ __forceinline__ int first_packet() const { return kStaged ? lane_ : row() * kHalf + thread(); }
  __device__ __forceinline__ int row_of(int packet) const {
    return kStaged ? staged_place(packet) / (kHalf / kPacket) : row();
  }
  __device__ __forceinline__ unsigned staged_place(int packet) const {
    return static_cast<unsigned>(lane_ + kWarp * packet);
  }
  __device__ __forceinline__ Packet* staged_packet(int packet) const {
    const unsigned place = staged_place(packet), row_packets = kHalf / kPacket;
    return reinterpret_cast<Packet*>(space_ + place / row_packets * kStagedRow + place % row_packets * kPacket);
  }
  static __device__ __forceinline__ Packet packet_of(const Complex<T> (&z)[8], int p) {
    Packet packet;
#pragma unroll
    for (int c = 0; c < kPacket; ++c) packet.part[c] = z[p * kPacket + c];
    return packet;
  }

  __device__ __forceinline__ Complex<T>* middle(int K, int n) const {
    return space_ + row() * kMiddleRow + K * kMiddleStep + n;
  }
  __device__ __forceinline__ Complex<T>* last(int K, int n) const {
    return space_ + row() * kLastRow + K + n * kLastStep;
  }
  // Register i of the middle stage is element i / (8 / kMiddle) of butterfly i % (8 / kMiddle); K and n of it:
  __device__ __forceinline__ int middle_low(int i) const {
    return (thread() + kThreads * (i % (8 / kMiddle))) & (kFirst - 1);
  }
  __device__ __forceinline__ int middle_rest(int i) const {
    return static_cast<int>(static_cast<unsigned>(thread() + kThreads * (i % (8 / kMiddle))) / kFirst);
  }
  // K of the two butterflies of the last stage.
  __device__ __forceinline__ int last_low(int b) const {
    const int t = thread();
    return b == 0 ? t : t == 0 ? kThreads : 2 * kThreads - t;
  }

  template <int Radix, bool Inverse>
  static __device__ __forceinline__ void stage(Complex<T> (&z)[8], const Complex<T>* twiddles) {
    constexpr int kButterflies = 8 / Radix;
    if constexpr (!Inverse) butterflies<Radix, Inverse>(z);
#pragma unroll
    for (int b = 0; b < kButterflies; ++b) {
#pragma unroll
      for (int k = 1; k < Radix; ++k) {
        Complex<T>& element = z[b + kButterflies * k];
        element = twiddled<Inverse>(element, twiddles[b * (Radix - 1) + k - 1]);
      }
    }
    if constexpr (Inverse) butterflies<Radix, Inverse>(z);
  }
  template <int Radix, bool Inverse>
  static __device__ __forceinline__ void butterflies(Complex<T> (&z)[8]) {
    if constexpr (Radix == 8) {
      transform8<Inverse>(z);
    } else {
      transform4<Inverse>(z[0], z[2], z[4], z[6]);
      transform4<Inverse>(z[1], z[3], z[5], z[7]);
    }
  }
  template <bool Inverse>
  __device__ __forceinline__ void first_stage(Complex<T> (&z)[8]) const {
    stage<kFirst, Inverse>(z, twiddles_);
  }
  template <bool Inverse>
  __device__ __forceinline__ void middle_stage(Complex<T> (&z)[8]) const {
    stage<kMiddle, Inverse>(z, twiddles_ + kFirstTwiddles);
  }

  // Thread t's two butterflies hold z[i] = Z[t + 2 T i] and z[4 + i] = Z[2 T - t + 2 T i], so z[i] and z[7 - i] belong
  // together. In thread 0, Z[2 T i] and Z[T + 2 T i], it is z[0] alone, z[1] with z[3], z[6] with z[5], z[7] with z[4],
  // and z[2] alone: bin h/2, which needs no other.
  __device__ __forceinline__ void split(const Complex<T> (&z)[8], Complex<T> (&bins)[kBins]) const {
    const bool zero = kThreads == 1 || thread() == 0;
    const Complex<T> low[4] = {z[0], z[1], zero ? z[6] : z[2], zero ? z[7] : z[3]};
    const Complex<T> high[4] = {zero ? z[0] : z[7], zero ? z[3] : z[6], z[5], z[4]};
    const Complex<T>* twiddles = twiddles_ + kFirstTwiddles + kMiddleTwiddles;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Complex<T> even = low[i] + conj(high[i]), odd = twiddles[i] * (low[i] - conj(high[i]));
      bins[i] = even + odd;
      bins[4 + i] = conj(even - odd);
    }
    bins[8] = {2 * z[2].re, -2 * z[2].im};
  }

  // The reverse, times two.
  __device__ __forceinline__ void join(const Complex<T> (&bins)[kBins], Complex<T> (&z)[8]) const {
    const bool zero = kThreads == 1 || thread() == 0;
    Complex<T> low[4], high[4];
    const Complex<T>* twiddles = twiddles_ + kFirstTwiddles + kMiddleTwiddles;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Complex<T> even = bins[i] + conj(bins[4 + i]), odd = correlate(twiddles[i], bins[i] - conj(bins[4 + i]));
      low[i] = even + odd;
      high[i] = conj(even - odd);
    }
    const Complex<T> half = {2 * bins[8].re, -2 * bins[8].im};
    z[0] = low[0], z[1] = low[1], z[4] = high[3], z[5] = high[2];
    z[2] = zero ? half : low[2], z[3] = zero ? high[1] : low[3];
    z[6] = zero ? low[2] : high[1], z[7] = zero ? low[3] : high[0];
  }

  const int lane_;
  Complex<T>* const space_;
  const Complex<T>* const twiddles_;
};

}  // namespace smore::cuda
