// Asynchronous copies, ldmatrix, mma, atomics and arithmetic, against plain computations.
#include "cases.h"

using namespace gk;

namespace {

// Four stages in flight, each refilled after it was read.
__global__ void pipeline(const float *in, float *out, int n_tiles) {
  GK_DYNAMIC_SHARED(memory);
  float4 *stages = reinterpret_cast<float4 *>(memory);
  const int i = threadIdx.x, n = blockDim.x;
  float sum = 0;
  auto load = [&](int tile) {
    if (tile < n_tiles) copy_async_16(stages + tile % 4 * n + i, in + (tile * n + i) * 4, (tile * n + i) % 5 != 0);
    copy_async_commit();
  };
  for (int tile = 0; tile < 3; tile++) load(tile);
  for (int tile = 0; tile < n_tiles; tile++) {
    copy_async_wait<2>();
    __syncthreads();
    const float4 v = stages[tile % 4 * n + (i + 40) % n];
    sum += v.x + 2 * v.y + 3 * v.z + 4 * v.w;
    load(tile + 3);
  }
  out[i] = sum;
}
CASE(copies_in_stages) {
  const int n = 96, n_tiles = 11;
  std::vector<float4> in(n * n_tiles);
  std::vector<float> out(n);
  for (size_t i = 0; i < in.size() * 4; i++) (&in[0].x)[i] = small_noise((uint32_t)i);
  CHECK(GK_LAUNCH(pipeline, 1, n, 4 * n * 16, nullptr, &in[0].x, out.data(), n_tiles) == 0);
  for (int i = 0; i < n; i++) {
    float sum = 0;
    for (int tile = 0; tile < n_tiles; tile++) {
      const int from = tile * n + (i + 40) % n;
      const float4 v = from % 5 ? in[from] : float4{0, 0, 0, 0};
      sum += v.x + 2 * v.y + 3 * v.z + 4 * v.w;
    }
    CHECK(out[i] == sum);
  }
}

// The content of shared memory before the first write, and between a copy and its wait.
__global__ void look_too_early(const uint32_t *in, uint32_t *out) {
  GK_DYNAMIC_SHARED(memory);
  const volatile uint32_t *words = reinterpret_cast<uint32_t *>(memory);
  out[0] = words[0];
  copy_async_16(memory, in);
  copy_async_commit();
  out[1] = words[0];
  copy_async_wait<0>();
  out[2] = words[0];
}
CASE(copies_land_late_or_early) {
  alignas(16) const uint32_t in[4] = {7, 7, 7, 7};
  uint32_t out[3];
  CHECK(GK_LAUNCH(look_too_early, 1, 1, 16, nullptr, in, out) == 0);
  const char *copies = getenv("GALLEY_EMULATOR_COPIES");
  CHECK(out[0] == ~0u && out[1] == (copies && !strcmp(copies, "early") ? 7 : ~0u) && out[2] == 7);
}

// Matrices in the layout of the PTX manual: element (row, column) of a register's pair, from lane and index.
__global__ void multiply(const gk_bf16 *a, const gk_bf16 *b, float *d, uint32_t *loaded, int b_transposed) {
  GK_DYNAMIC_SHARED(memory);
  bf16 *a_shared = reinterpret_cast<bf16 *>(memory), *b_shared = a_shared + 16 * 24;
  for (int i = threadIdx.x; i < 256; i += 32) a_shared[i / 16 * 24 + i % 16] = as_bf16(a)[i];
  // b is k × n. Stored as n rows of k, b is loaded directly; stored as k rows of n, b is loaded transposed.
  for (int i = threadIdx.x; i < 256; i += 32) b_shared[i / 16 * 24 + i % 16] = as_bf16(b)[i];
  __syncthreads();
  const int lane = lane_id();
  uint32_t a_regs[4], b_regs[4];
  load_matrix_x4(a_regs, a_shared + lane % 16 * 24 + lane / 16 * 8);
  if (b_transposed) {
    load_matrix_x4_transposed(b_regs, b_shared + lane % 16 * 24 + lane / 16 * 8);
  } else {
    load_matrix_x4(b_regs, b_shared + (lane / 16 * 8 + lane % 8) * 24 + lane / 8 % 2 * 8);
  }
  for (int i = 0; i < 4; i++) loaded[lane * 4 + i] = a_regs[i];
  for (int half = 0; half < 2; half++) {
    float sums[4];
    for (int i = 0; i < 4; i++) sums[i] = d[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2];
    mma_bf16(sums, a_regs, b_regs[half * 2], b_regs[half * 2 + 1]);
    for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}
CASE(matrices) {
  for (int b_transposed : {0, 1}) {
    gk_bf16 a[256], b[256];
    float d[256], want[256];
    uint32_t loaded[128];
    for (int i = 0; i < 256; i++) {
      a[i] = to_bf16(small_noise(i)).x;
      b[i] = to_bf16(small_noise(1000 + i)).x;
      d[i] = want[i] = small_noise(2000 + i);
    }
    for (int m = 0; m < 16; m++) {
      for (int n = 0; n < 16; n++) {
        for (int k = 0; k < 16; k++) {
          want[m * 16 + n] += to_f32({a[m * 16 + k]}) * to_f32({b_transposed ? b[k * 16 + n] : b[n * 16 + k]});
        }
      }
    }
    CHECK(GK_LAUNCH(multiply, 1, 32, 2 * 16 * 24 * 2, nullptr, a, b, d, loaded, b_transposed) == 0);
    for (int i = 0; i < 256; i++) CHECK(d[i] == want[i]);
    for (int i = 0; i < 128; i++) {
      const int lane = i / 4, row = lane / 4 + i % 2 * 8, column = lane % 4 * 2 + i % 4 / 2 * 8;
      CHECK(loaded[i] == (a[row * 16 + column] | (uint32_t)a[row * 16 + column + 1] << 16));
    }
  }
}

__global__ void count(int *integers, float *sum, unsigned long long *wide, unsigned *last) {
  __shared__ int in_block;
  const int i = (int)(threadIdx.x + blockIdx.x * blockDim.x);
  if (threadIdx.x == 0) in_block = 0;
  __syncthreads();
  atomicAdd(&in_block, i);
  atomicAdd(&integers[0], 1);
  atomicSub(&integers[1], 2);
  atomicMax(&integers[2], i);
  atomicMin(&integers[3], -i);
  atomicOr(&integers[4], 1 << i % 31);
  atomicAnd(&integers[5], ~(1 << i % 31));
  atomicXor(&integers[6], i);
  if (atomicExch(&integers[7], 1) == 0) atomicAdd(&integers[8], 1);
  if (atomicCAS(&integers[9], 0, 5) == 0) atomicAdd(&integers[10], 1);
  atomicAdd(sum, 0.5f);
  atomicAdd(wide, 1ull << 32);
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(&integers[11], in_block);
    __threadfence();
    if (atomicAdd(last, 1) == gridDim.x - 1) integers[12] = atomicAdd(&integers[11], 0);  // the last block has all sums
  }
}
CASE(atomics) {
  int integers[13] = {0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0}, x = 0;
  float sum = 0;
  unsigned long long wide = 0;
  unsigned last = 0;
  const int n = 20 * 70;
  CHECK(GK_LAUNCH(count, 20, 70, 0, nullptr, integers, &sum, &wide, &last) == 0);
  for (int i = 0; i < n; i++) x ^= i;
  CHECK(integers[0] == n && integers[1] == -2 * n && integers[2] == n - 1 && integers[3] == 1 - n);
  CHECK(integers[4] == 0x7fffffff && integers[5] == (int)0x80000000 && integers[6] == x && integers[8] == 1);
  CHECK(integers[9] == 5 && integers[10] == 1 && integers[11] == n * (n - 1) / 2 && integers[12] == integers[11]);
  CHECK(sum == n / 2.0f && wide == (unsigned long long)n << 32);
}

CASE(arithmetic) {
  CHECK(__brev(1u) == 0x80000000u && __brev(0x0000f00du) == 0xb00f0000u && __clz(1) == 31 && __clz(0) == 32);
  CHECK(__ffs(8) == 4 && __ffs(0) == 0 && __popc(0xf0f0u) == 8 && __umulhi(0x80000000u, 6) == 3);
  CHECK(__mulhi(-1, 1) == -1 && __fmul_rn(3, 4) == 12);
  CHECK(__umul64hi(1ull << 63, 6) == 3 && __byte_perm(0x33221100u, 0x77665544u, 0x7150u) == 0x77115500u);
  CHECK(__funnelshift_l(0x80000000u, 1u, 1) == 3u && __funnelshift_r(0u, 1u, 1) == 0x80000000u);
  CHECK(__float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0x40000000u) == 2.0f && __float2int_rn(2.5f) == 2);
  CHECK(__float2int_rd(-1.5f) == -2 && __float2int_ru(1.2f) == 2 && __saturatef(NAN) == 0.0f && rsqrtf(4.0f) == 0.5f);
  CHECK(fabsf(__expf(1.0f) - 2.7182818f) < 1e-6f && __logf(1.0f) == 0.0f && exp2f(3.0f) == 8.0f);
  for (uint32_t i = 0; i < 100000; i++) {
    const float value = __uint_as_float(noise(i));
    const float rounded = to_f32(to_bf16(value));
    if (value != value) {
      CHECK(rounded != rounded);
      continue;
    }
    // A value between two bf16 rounds to the nearer one, a tie to the even one; beyond the largest it becomes infinity.
    const uint32_t bits = __float_as_uint(value), down = bits & 0xffff0000u, rest = bits & 0xffffu;
    const bool goes_up = rest > 0x8000u || (rest == 0x8000u && (down & 0x10000u));
    CHECK(__float_as_uint(rounded) == (goes_up ? down + 0x10000u : down));
  }
}

// ---- errors that must be noticed

__attribute__((noinline)) int deeper(int depth) {
  volatile int local[200];
  local[depth % 200] = depth;
  return depth == 0 ? local[0] : deeper(depth - 1) + local[depth % 200];
}

__global__ void bad(int which, const float *in) {
  GK_DYNAMIC_SHARED(memory);
  uint32_t regs[4];
  float sums[4] = {};
  switch (which) {
    case 0: copy_async_16(memory + 8, in); break;
    case 1: copy_async_16(memory, in + 1); break;
    case 2: load_matrix_x4(regs, memory + 2 * threadIdx.x); break;
    case 3: if (threadIdx.x < 31) load_matrix_x4(regs, memory); break;
    case 4: if (threadIdx.x) mma_bf16(sums, {0, 0, 0, 0}, 0, 0); break;
    case 5: for (int i = 0; i < 100; i++) copy_async_commit(); break;
    case 6: (void)GK_LAUNCH(bad, 1, 32, 1024, nullptr, 0, in); break;
    case 7: memory[0] = (unsigned char)deeper(1000); break;
  }
}
void launch_bad(int which) {
  alignas(16) float in[8] = {};
  (void)GK_LAUNCH(bad, 1, 32, 1024, nullptr, which, in);
}
MUST_DIE(copy_to_an_odd_address) { launch_bad(0); }
MUST_DIE(copy_from_an_odd_address) { launch_bad(1); }
MUST_DIE(odd_matrix_row) { launch_bad(2); }
MUST_DIE(load_without_all_lanes) { launch_bad(3); }
MUST_DIE(multiply_without_all_lanes) { launch_bad(4); }
MUST_DIE(too_many_groups) { launch_bad(5); }
MUST_DIE(launch_in_a_kernel) { launch_bad(6); }
MUST_DIE(too_large_a_stack) { launch_bad(7); }

}  // namespace
