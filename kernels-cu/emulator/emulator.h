// emulator: run CUDA C++ kernels on the host, one fiber per CUDA thread. Included instead of <cuda_runtime.h>
// when a .cu file is compiled by a plain C++17 compiler (-x c++).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local          // blocks of one OS thread run one after another

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float a, float b) { return {a, b}; }
static inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
typedef struct CUstream_st* cudaStream_t;

namespace emulator {
#if defined(__SANITIZE_ADDRESS__)
#define GALLEY_EMULATOR_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GALLEY_EMULATOR_TSAN 1
#endif
#define GALLEY_EMULATOR_NOTSAN __attribute__((no_sanitize("thread")))

struct Lane { uint64_t v; const void* in[3]; void* out; int arg; };        // what a lane brings to a warp collective
struct Coll { uint32_t mask = 0, arrived = 0; int op = 0; void (*fn)(Coll&) = nullptr; Lane lane[32]; };
struct AsyncCopy { void* dst; const void* src; int bytes; int valid; };
struct Fiber {
  void* sp; void* stack; void* asan_fake; void* tsan;
  uint3 tid; unsigned linear; uint16_t lane, warp; uint8_t done; const char* waiting;
  AsyncCopy* cp; int ncp, cp_group_end[8], ngroups;
};
constexpr int MAX_CP = 128;                      // cp.async in flight per thread
extern __thread Fiber* cur __attribute__((tls_model("initial-exec")));
struct BlockCtx { uint3 bid, bdim, gdim; unsigned char* dsmem; size_t dsmem_bytes; };
extern __thread BlockCtx blk __attribute__((tls_model("initial-exec")));

bool cp_eager();                                  // cp.async lands at issue (finds missing WAR barriers) or at wait (finds missing waits)
void collective(uint32_t mask, int op, const Lane& in, void (*fn)(Coll&));  // blocks until every live lane of mask came
void barrier(int id, unsigned count);                                      // count 0: all live threads of the block
[[noreturn]] void fail(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
typedef void (*Body)(const void*);
void run_grid(dim3 grid, dim3 block, size_t smem, Body body, const void* arg);
template <class F> void launch(dim3 g, dim3 b, size_t smem, const F& f) {
  run_grid(g, b, smem, [](const void* p) { (*static_cast<const F*>(p))(); }, &f);
}
template <class K, class... A> void launch_args(dim3 g, dim3 b, size_t smem, K k, A... a) { launch(g, b, smem, [&] { k(a...); }); }
template <class T> inline uint64_t bits(T v) { static_assert(sizeof(T) <= 8); uint64_t u = 0; __builtin_memcpy(&u, &v, sizeof v); return u; }
template <class T> inline T unbits(uint64_t u) { T v; __builtin_memcpy(&v, &u, sizeof v); return v; }
enum { OP_SYNC = 1, OP_SHFL, OP_BALLOT, OP_LDM, OP_LDMT, OP_MMA_BF16 };
void fn_sync(Coll&); void fn_shfl(Coll&); void fn_ballot(Coll&); void fn_ldm(Coll&); void fn_ldmt(Coll&); void fn_mma_bf16(Coll&);

template <class T> inline T shfl(uint32_t mask, T v, int src, int) {
  uint64_t r = 0; Lane l{bits(v), {}, &r, src}; collective(mask, OP_SHFL, l, fn_shfl); return unbits<T>(r);
}
}  // namespace emulator

#define threadIdx (emulator::cur->tid)
#define blockIdx (emulator::blk.bid)
#define blockDim (emulator::blk.bdim)
#define gridDim (emulator::blk.gdim)
static constexpr int warpSize = 32;

static inline void __syncthreads() { emulator::barrier(0, 0); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::collective(mask, emulator::OP_SYNC, {}, emulator::fn_sync); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() {}
template <class T> inline T __shfl_sync(unsigned m, T v, int src, int w = 32) { int l = emulator::cur->lane; return emulator::shfl(m, v, (l & ~(w - 1)) | (src & (w - 1)), w); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) { int l = emulator::cur->lane, s = l ^ x; return emulator::shfl(m, v, s < ((l & ~(w - 1)) + w) ? s : l, w); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) { int l = emulator::cur->lane; int s = l + (int)d; return emulator::shfl(m, v, s < ((l & ~(w - 1)) + w) ? s : l, w); }
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) { int l = emulator::cur->lane; int s = l - (int)d; return emulator::shfl(m, v, s >= (l & ~(w - 1)) ? s : l, w); }
static inline unsigned __ballot_sync(unsigned m, int p) { uint64_t r = 0; emulator::Lane l{(uint64_t)(p != 0), {}, &r, 0}; emulator::collective(m, emulator::OP_BALLOT, l, emulator::fn_ballot); return (unsigned)r; }
static inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
static inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, !p) == 0; }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline unsigned __float_as_uint(float v) { unsigned u; __builtin_memcpy(&u, &v, 4); return u; }
static inline float __uint_as_float(unsigned u) { float v; __builtin_memcpy(&v, &u, 4); return v; }
template <class T> inline T __ldg(const T* p) { return *p; }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline float emulator_expf(float x) { return std::exp(x); }
#define __expf emulator_expf                       // glibc's math.h has internal declarations of these reserved names
static inline float __fdividef(float a, float b) { return a / b; }
using std::max; using std::min;

template <class T> inline T atomicAdd(T* p, T v) {
  if constexpr (std::is_integral_v<T>) return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  else { using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>; U* q = (U*)p; U o = __atomic_load_n(q, __ATOMIC_RELAXED), n;
    do { n = (U)emulator::bits(emulator::unbits<T>(o) + v); } while (!__atomic_compare_exchange_n(q, &o, n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return emulator::unbits<T>(o); }
}
template <class T> inline T atomicMax(T* p, T v) { T o = __atomic_load_n(p, __ATOMIC_RELAXED); while (o < v && !__atomic_compare_exchange_n(p, &o, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} return o; }
template <class T> inline T atomicCAS(T* p, T c, T v) { __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); return c; }
template <class T> inline T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }

struct __nv_bfloat16 { uint16_t x; };
static inline float __bfloat162float(__nv_bfloat16 v) { uint32_t u = (uint32_t)v.x << 16; float f; __builtin_memcpy(&f, &u, 4); return f; }
static inline __nv_bfloat16 __float2bfloat16(float f) {
  uint32_t u; __builtin_memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {(uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

namespace emulator {
struct Shared { unsigned char *shared; };
static inline Shared block() { return {blk.dsmem}; }
template <class K, class... A> int32_t launch(K k, dim3 g, dim3 b, size_t smem, A... a) { launch_args(g, b, smem, k, a...); return 0; }
namespace device {
static inline void cp_async_flush(int upto) {                              // perform the copies of the oldest groups
  emulator::Fiber& f = *emulator::cur; int end = upto ? f.cp_group_end[upto - 1] : 0;
  for (int i = 0; i < end; i++) { unsigned char* d = (unsigned char*)f.cp[i].dst; const unsigned char* s = (const unsigned char*)f.cp[i].src;
    if (f.cp[i].valid) memcpy(d, s, 16); else memset(d, 0, 16); }
  std::copy(f.cp + end, f.cp + f.ncp, f.cp); f.ncp -= end;
  for (int i = upto; i < f.ngroups; i++) f.cp_group_end[i - upto] = f.cp_group_end[i] - end;
  f.ngroups -= upto;
}
static inline void copy_async_16(void* dst, const void* src, bool valid = true) {
  emulator::Fiber& f = *emulator::cur;
  if (((uintptr_t)dst | (valid ? (uintptr_t)src : 0)) & 15) emulator::fail("cp.async 16: address not 16-byte aligned");
  if (f.ncp == emulator::MAX_CP) emulator::fail("too many cp.async in flight for emulator");
  if (emulator::cp_eager()) { if (valid) memcpy(dst, src, 16); else memset(dst, 0, 16); return; }
  f.cp[f.ncp++] = {dst, src, 16, valid};                                   // deferred: a missing wait shows up as stale data
}
static inline void copy_async_commit() { emulator::Fiber& f = *emulator::cur; f.cp_group_end[f.ngroups++] = f.ncp; }
template <int N> static inline void copy_async_wait() { emulator::Fiber& f = *emulator::cur; if (f.ngroups > N) cp_async_flush(f.ngroups - N); }
static inline void ldm_touch(const void* row) {                            // an instrumented read, for ThreadSanitizer
#ifdef GALLEY_EMULATOR_TSAN
  const volatile uint64_t* p = (const volatile uint64_t*)row; (void)p[0]; (void)p[1];
#else
  (void)row;
#endif
}
static inline void load_matrix_x4(uint32_t (&r)[4], const void* row) { ldm_touch(row); emulator::Lane l{0, {row}, r, 0}; emulator::collective(~0u, emulator::OP_LDM, l, emulator::fn_ldm); }
static inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) { ldm_touch(row); emulator::Lane l{0, {row}, r, 0}; emulator::collective(~0u, emulator::OP_LDMT, l, emulator::fn_ldmt); }
static inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t b0, const uint32_t b1) {
  uint32_t b[2] = {b0, b1}; emulator::Lane l{0, {a, b}, d, 0}; emulator::collective(~0u, emulator::OP_MMA_BF16, l, emulator::fn_mma_bf16); }
static inline uint32_t pack_bf16(float lo, float hi) { return (uint32_t)__float2bfloat16(lo).x | ((uint32_t)__float2bfloat16(hi).x << 16); }

}  // namespace device
}  // namespace emulator
