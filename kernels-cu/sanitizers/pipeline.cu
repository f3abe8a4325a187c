// A small kernel in the style of the real ones: cp.async fills two stages, other threads read them, and a sum goes
// through shared memory within a warp. GALLEY_PLANT plants one defect (a missing wait or barrier, or too little shared
// memory), which a detector must report: see tests/sanitizers.rs.
#include "device.cuh"

#include <vector>

#ifndef GALLEY_PLANT
#define GALLEY_PLANT 0
#endif

namespace {

constexpr int N_THREADS = 64, N_TILES = 5;

struct Call {
  const float *in;  // n_blocks × N_TILES × N_THREADS × 4
  float *out;       // n_blocks × N_THREADS
};

__global__ void __launch_bounds__(N_THREADS) sum_tiles(Call call) {
  GK_DYNAMIC_SHARED(memory);
  float4 *stages = reinterpret_cast<float4 *>(memory);
  float *sums = reinterpret_cast<float *>(stages + 2 * N_THREADS);
  const int i = threadIdx.x;
  const float *in = call.in + blockIdx.x * N_TILES * N_THREADS * 4;
  float sum = 0;
  gk::copy_async_16(stages + i, in + i * 4);
  gk::copy_async_commit();
  for (int tile = 0; tile < N_TILES; tile++) {
    if (tile + 1 < N_TILES) {
      gk::copy_async_16(stages + (tile + 1) % 2 * N_THREADS + i, in + ((tile + 1) * N_THREADS + i) * 4);
    }
    gk::copy_async_commit();
#if GALLEY_PLANT != 1
    gk::copy_async_wait<1>();
#endif
#if GALLEY_PLANT != 2
    __syncthreads();
#endif
    const float4 value = stages[tile % 2 * N_THREADS + (i + 33) % N_THREADS];
    sum += value.x + value.y + value.z + value.w;
#if GALLEY_PLANT != 3
    __syncthreads();
#endif
  }
  sums[i] = sum;
#if GALLEY_PLANT != 5
  __syncwarp();
#endif
  call.out[blockIdx.x * N_THREADS + i] = sum + __shfl_xor_sync(gk::ALL_LANES, sum, 1) + sums[i ^ 2];
}

}  // namespace

int main() {
  const int n_blocks = 6, n = n_blocks * N_THREADS;
  std::vector<float> in(n * N_TILES * 4), out(n), plain(n);
  for (size_t i = 0; i < in.size(); i++) in[i] = (float)(i * 7919 % 1000);
  const size_t bytes = 2 * N_THREADS * 16 + N_THREADS * 4 - (GALLEY_PLANT == 4 ? 16 : 0);
  if (GK_LAUNCH(sum_tiles, n_blocks, N_THREADS, bytes, nullptr, Call{in.data(), out.data()})) return 2;
  for (int at = 0; at < n; at++) {
    const int block = at / N_THREADS, from = (at % N_THREADS + 33) % N_THREADS;
    for (int i = 0; i < N_TILES * 4; i++) {
      plain[at] += in[(block * N_TILES * N_THREADS + i / 4 * N_THREADS + from) * 4 + i % 4];
    }
  }
  for (int at = 0; at < n; at++) {
    const float want = plain[at] + plain[at ^ 1] + plain[at ^ 2];
    if (!(fabsf(out[at] - want) < 0.5f)) {
      fprintf(stderr, "wrong numbers: %g, not %g\n", out[at], want);
      return 1;
    }
  }
  return 0;
}
