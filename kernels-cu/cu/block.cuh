// Reductions over the threads of a block. A block is a whole number of warps.
#pragma once

#include "device.cuh"

namespace gk {

static constexpr int MAX_WARPS = 32;

// Returns the block's smallest `value` to every thread. `scratch` has MAX_WARPS entries; the next call may reuse it.
GK_DEVICE uint64_t block_min(uint64_t value, uint64_t *scratch) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    uint64_t other = __shfl_xor_sync(ALL_LANES, value, step);
    value = other < value ? other : value;
  }
  __syncthreads();
  if (lane_id() == 0) scratch[warp_id()] = value;
  __syncthreads();
  for (unsigned warp = 0; warp < blockDim.x / 32; warp++) value = scratch[warp] < value ? scratch[warp] : value;
  return value;
}

// Returns the sum over the threads before this one, and sets `total` to the sum over all. Integer sums are exact.
GK_DEVICE uint64_t block_sum_before(uint64_t value, uint64_t *scratch, uint64_t &total) {
  uint64_t up_to_here = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    uint64_t other = __shfl_up_sync(ALL_LANES, up_to_here, step);
    if (lane_id() >= step) up_to_here += other;
  }
  __syncthreads();
  if (lane_id() == 31) scratch[warp_id()] = up_to_here;
  __syncthreads();
  uint64_t before = up_to_here - value;
  total = 0;
  for (int warp = 0; warp < (int)blockDim.x / 32; warp++) {
    if (warp < warp_id()) before += scratch[warp];
    total += scratch[warp];
  }
  return before;
}

}  // namespace gk
