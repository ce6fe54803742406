// Compiles one kernel file once per instruction level and picks a version at run time.
//
// A kernel source says
//     #define SMORE_KERNEL_FILE "sparse/cpu/spmm_kernel.inl"
//     #include "cpu/simd/foreach_level.h"
// and calls SMORE_DISPATCH(function)(arguments). The file may be the source itself, with what belongs to a level under
// #ifdef SMORE_LEVEL and these lines under its #else. The .inl file puts its code into `namespace
// smore::SMORE_LEVEL` and includes nothing: standard headers come first, so that no inline library function
// is compiled for an instruction set that the processor may lack (the linker could otherwise pick that copy
// for everybody).
#ifndef SMORE_KERNEL_FILE
#error "define SMORE_KERNEL_FILE before including cpu/simd/foreach_level.h"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "cpu/simd/level.h"

#if defined(SMORE_SIMD_LEVELS)
#include <immintrin.h>
#endif

#define SMORE_INLINE static inline __attribute__((always_inline))

#define SMORE_LEVEL portable
#define SMORE_VECTOR_BYTES 16
#include "cpu/simd/vec.inl"
#include SMORE_KERNEL_FILE
#undef SMORE_LEVEL
#undef SMORE_VECTOR_BYTES

#if defined(SMORE_SIMD_LEVELS)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SMORE_LEVEL avx2
#define SMORE_VECTOR_BYTES 32
#include "cpu/simd/vec.inl"
#include SMORE_KERNEL_FILE
#undef SMORE_LEVEL
#undef SMORE_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")
#endif
#define SMORE_LEVEL avx512
#define SMORE_VECTOR_BYTES 64
#include "cpu/simd/vec.inl"
#include SMORE_KERNEL_FILE
#undef SMORE_LEVEL
#undef SMORE_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define SMORE_DISPATCH(...)                                                            \
  (::smore::simd_level() == ::smore::SimdLevel::avx512 ? &::smore::avx512::__VA_ARGS__ \
   : ::smore::simd_level() == ::smore::SimdLevel::avx2 ? &::smore::avx2::__VA_ARGS__   \
                                                       : &::smore::portable::__VA_ARGS__)

#else

#define SMORE_DISPATCH(...) (&::smore::portable::__VA_ARGS__)

#endif
