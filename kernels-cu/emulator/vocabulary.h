// Parts of CUDA C++ that a C++ compiler lacks: qualifiers and vector types.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <math.h>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__) && !defined(GALLEY_EMULATOR_ASAN)
#define GALLEY_EMULATOR_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(GALLEY_EMULATOR_TSAN)
#define GALLEY_EMULATOR_TSAN 1
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN)
#define __forceinline__ inline  // with the checks inlined, kernels take minutes to compile
#else
#define __forceinline__ inline __attribute__((always_inline))
#endif
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local  // an OS thread runs one block at a time

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define GALLEY_VECTOR(type, name)                                                                                      \
  struct alignas(2 * sizeof(type)) name##2 {                                                                           \
    type x, y;                                                                                                         \
  };                                                                                                                   \
  struct name##3 {                                                                                                     \
    type x, y, z;                                                                                                      \
  };                                                                                                                   \
  struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 {                                              \
    type x, y, z, w;                                                                                                   \
  };                                                                                                                   \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                     \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                          \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
GALLEY_VECTOR(float, float)
GALLEY_VECTOR(double, double)
GALLEY_VECTOR(int, int)
GALLEY_VECTOR(unsigned, uint)
GALLEY_VECTOR(short, short)
GALLEY_VECTOR(unsigned short, ushort)
GALLEY_VECTOR(long long, longlong)
GALLEY_VECTOR(unsigned long long, ulonglong)
#undef GALLEY_VECTOR

typedef struct CUstream_st *cudaStream_t;
static constexpr int warpSize = 32;
using std::max;
using std::min;
