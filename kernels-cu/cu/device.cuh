// The layer between kernels and their compiler, nvcc or the C++ compiler of the emulation. Kernels use the declarations
// of this file: they contain no inline PTX and no <<<>>>. (table.cu also asks for the compiler, for its names.)
#pragma once

#include "galley_kernels.h"

#include <cmath>
#include <cstring>

#ifdef __CUDACC__
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define GK_LAUNCHER(name) extern "C" int32_t galley_cuda_##name
#define GK_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                      \
  ((kernel)<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__), (int32_t)cudaGetLastError())
#define GK_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define GK_ALLOW_SHARED(kernel, bytes)                                                                                 \
  (gk::cleared(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))))
#else
#include "emulator.h"
#define GK_LAUNCHER(name) extern "C" int32_t galley_emulated_##name
#define GK_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                      \
  (emulator::launch(stream, kernel, grid, block, shared_bytes, __VA_ARGS__))
#define GK_DYNAMIC_SHARED(name) unsigned char *const name = emulator::block().shared
#define GK_ALLOW_SHARED(kernel, bytes) (emulator::allow_shared(reinterpret_cast<const void *>(kernel), bytes))
#endif

#define GK_DEVICE static __device__ __forceinline__
#define GK_DEVICE_MEMBER __device__ __forceinline__

// Makes a launcher return GK_BAD_CALL unless `condition` holds.
#define GK_REQUIRE(condition)                                                                                          \
  do {                                                                                                                 \
    if (!(condition)) return GK_BAD_CALL;                                                                              \
  } while (0)

namespace gk {

using bf16 = __nv_bfloat16;
static constexpr unsigned ALL_LANES = 0xffffffffu;

GK_DEVICE float to_f32(bf16 value) { return __bfloat162float(value); }
GK_DEVICE bf16 to_bf16(float value) { return __float2bfloat16(value); }  // to nearest, ties to even
GK_DEVICE float f32_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
GK_DEVICE uint32_t bits_of_f32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
GK_DEVICE int lane_id() { return threadIdx.x & 31; }
GK_DEVICE int warp_id() { return threadIdx.x >> 5; }

template <class T>
static constexpr __host__ __device__ T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Whether a pointer is a multiple of `bytes`.
static inline bool is_aligned(const void *p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

#ifdef __CUDACC__

// The error of a call that is not a launch, cleared in the runtime. GK_LAUNCH reads the last error, and would otherwise
// report this one for the next launch of the thread.
static inline int32_t cleared(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return (int32_t)error;
}

// Shared memory available to a block on the current device; 0 if there is no device.
static inline int shared_bytes_limit() {
  int device = 0, bytes = 0;
  if (cleared(cudaGetDevice(&device)) != 0) return 0;
  if (cleared(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) != 0) return 0;
  return bytes;
}

// 2^x in one instruction, to 2 ulp; results below the smallest normal number are zero.
GK_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

GK_DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Copies 16 bytes from global to shared memory, or writes zeros if `valid` is false. A wait completes the copy.
GK_DEVICE void copy_async_16(void *to, const void *from, bool valid = true) {
  int n = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(n)
               : "memory");
}
GK_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until at most N of this thread's groups are in flight.
template <int N>
GK_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// Loads four 8×8 matrices of bf16. Lane i passes the address of row i % 8 of matrix i / 8.
GK_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
GK_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b on a tensor core: m16n8k16, bf16 operands, f32 sums.
GK_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Packs two values as bf16, the first in the low half.
GK_DEVICE uint32_t pack_bf16(float low, float high) {
  __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<uint32_t *>(&v);
}

#else

using namespace emulator::device;

static inline int shared_bytes_limit() { return (int)emulator::shared_bytes_limit(); }
GK_DEVICE float exp2_fast(float x) {
  float y = exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

#endif

// The two values of a word of pack_bf16.
GK_DEVICE float low_f32(uint32_t two) { return f32_of_bits(two << 16); }
GK_DEVICE float high_f32(uint32_t two) { return f32_of_bits(two & 0xffff0000u); }

GK_DEVICE const bf16 *as_bf16(const gk_bf16 *p) { return reinterpret_cast<const bf16 *>(p); }
GK_DEVICE bf16 *as_bf16(gk_bf16 *p) { return reinterpret_cast<bf16 *>(p); }

// Address of the key of a slot; its value is `kv.values_at` further.
GK_DEVICE bf16 *key_address(const gk_kv &kv, int layer, int kv_head, int block, int slot) {
  int64_t arena = (int64_t)layer * kv.n_kv_heads + kv_head;
  if (block >= kv.arena_blocks) {  // only a draft model that shares the pool has such blocks
    arena += (int64_t)(block / kv.arena_blocks) * kv.n_layers * kv.n_kv_heads;
    block %= kv.arena_blocks;
  }
  return as_bf16(kv.base) + arena * kv.arena_stride + block * kv.block_stride + (int64_t)slot * kv.head_dim;
}

// Whether a kernel can step through the pool 16 bytes at a time.
static inline bool is_pool(const gk_kv &kv) {
  return kv.n_layers > 0 && kv.n_kv_heads > 0 && kv.arena_blocks > 0 && kv.head_dim > 0 && kv.head_dim % 8 == 0 &&
         kv.head_dim <= GK_MAX_HEAD_DIM && kv.block_size > 0 && kv.block_size % 16 == 0 && kv.arena_stride % 8 == 0 &&
         kv.values_at % 8 == 0 && kv.block_stride % 8 == 0 && kv.block_stride >= (int64_t)kv.block_size * kv.head_dim &&
         is_aligned(kv.base, 16);
}

}  // namespace gk
