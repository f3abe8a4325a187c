// Selects the indices of the highest scores with one block of threads, in ascending order.
#pragma once
#include "device.cuh"

namespace {

using namespace gk;

constexpr int SELECT_THREADS = 1024;
constexpr int SELECT_WARPS = SELECT_THREADS / 32;
static_assert(SELECT_WARPS == 32, "a warp reads the totals of all warps at once");
constexpr int BINS = 2 * SELECT_THREADS;

// The sum of `totals` over the warps before this one.
GK_DEVICE int before_warp(const int *totals) {
  int before = lane_id() < warp_id() ? totals[lane_id()] : 0;
#pragma unroll
  for (int other = 16; other; other /= 2) before += __shfl_xor_sync(ALL_LANES, before, other);
  return before;
}

// Writes the indices of the `wanted` highest scores to `out`, ascending and counted from first_id. Of equal scores, the
// lowest indices are selected. Scores are not negative, so their bits, as integers, are in the same order. Three passes
// of 11 bits find the lowest selected score (`threshold`); `wanted` is then the number of scores equal to it that are
// selected. All threads of the block call this function with the same arguments; 0 < wanted <= n.
GK_DEVICE void select_highest(const float *scores, int n, int wanted, uint32_t first_id, uint32_t *out) {
  __shared__ int bins[BINS];
  __shared__ int totals[SELECT_WARPS];
  __shared__ int equal_totals[SELECT_WARPS];
  __shared__ int found[2];
  const int lane = lane_id(), thread = threadIdx.x;
  uint32_t known = 0, threshold = 0;  // mask of the known bits of the threshold, and these bits
  for (int pass = 0; pass < 3; pass++) {
    const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
    bins[thread] = bins[thread + SELECT_THREADS] = 0;
    __syncthreads();
    for (int start = 0; start < n; start += SELECT_THREADS) {
      const uint32_t bits = start + thread < n ? bits_of_f32(scores[start + thread]) : 0;
      const int bin = start + thread < n && (bits & known) == threshold ? (int)(bits >> shift & (BINS - 1)) : -1;
      // A warp with equal scores (zeros behind a window) adds once, so that its lanes do not queue for one counter.
      const int first = __shfl_sync(ALL_LANES, bin, 0);
      if (__all_sync(ALL_LANES, bin == first)) {
        if (lane == 0 && first >= 0) atomicAdd(&bins[first], 32);
      } else if (bin >= 0) {
        atomicAdd(&bins[bin], 1);
      }
    }
    __syncthreads();
    // Bins are scanned in descending order, two a thread: `n_both` scores are in its two bins, `higher` above them.
    const int high = BINS - 1 - 2 * thread, n_high = bins[high], n_both = n_high + bins[high - 1];
    int scan = n_both;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(ALL_LANES, scan, step);
      if (lane >= step) scan += other;
    }
    if (lane == 31) totals[warp_id()] = scan;
    __syncthreads();
    const int higher = before_warp(totals) + scan - n_both;
    if (higher < wanted && wanted <= higher + n_both) {
      const bool is_high = wanted <= higher + n_high;
      found[0] = is_high ? high : high - 1;
      found[1] = is_high ? higher : higher + n_high;
    }
    __syncthreads();
    threshold |= (uint32_t)found[0] << shift;
    wanted -= found[1];
    known |= (uint32_t)(BINS - 1) << shift;
  }

  // Each warp takes a run of candidates: it counts its selected ones, sums the counts before it, and writes in order.
  const int run = ceil_div(n, SELECT_THREADS) * 32, start = warp_id() * run, end = min(n, start + run);
  const auto higher_and_equal = [&](int i, unsigned (&masks)[2]) {
    const uint32_t bits = i < end ? bits_of_f32(scores[i]) : 0;
    masks[0] = __ballot_sync(ALL_LANES, i < end && bits > threshold);
    masks[1] = __ballot_sync(ALL_LANES, i < end && bits == threshold);
  };
  int n_higher = 0, n_equal = 0;
  unsigned masks[2];
  for (int i = start; i < end; i += 32) {
    higher_and_equal(i + lane, masks);
    n_higher += __popc(masks[0]);
    n_equal += __popc(masks[1]);
  }
  if (lane == 0) {
    totals[warp_id()] = n_higher;
    equal_totals[warp_id()] = n_equal;
  }
  __syncthreads();
  n_higher = before_warp(totals);
  n_equal = before_warp(equal_totals);
  for (int i = start; i < end; i += 32) {
    higher_and_equal(i + lane, masks);
    const unsigned below = (1u << lane) - 1;
    const int higher = n_higher + __popc(masks[0] & below), equal = n_equal + __popc(masks[1] & below);
    const bool is_equal = masks[1] >> lane & 1;
    if (masks[0] >> lane & 1 || (is_equal && equal < wanted)) out[higher + min(equal, wanted)] = first_id + i + lane;
    n_higher += __popc(masks[0]);
    n_equal += __popc(masks[1]);
  }
}

}  // namespace
