// The end of an attention block: it stores the state of a partition for a later merge, or the output of its rows.
#pragma once

#include "attention_accumulators.cuh"

namespace {

// Stores the state of the unit's partition. `column` is the first dimension of the thread.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void store_state(const Accumulators<HEAD_DIM, M_TILES> &rows, const State &state, int n_queries,
                           int column, int head_dim) {
  const int lane = lane_id(), warp = warp_id();
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = mt * 16 + half * 8 + lane / 4;
      if (row >= n_queries) continue;
      if (mt == warp && lane % 4 == 0) {
        state.m[row] = rows.m[mt][half];
        state.l[row] = rows.l[half * 2];
      }
#pragma unroll
      for (int nt = 0; nt < rows.N_TILES; nt++) {
        if (column + nt * 8 < head_dim)
          *reinterpret_cast<float2 *>(state.o + row * head_dim + column + nt * 8) =
              make_float2(rows.o[mt][nt][half * 2], rows.o[mt][nt][half * 2 + 1]);
      }
    }
  }
}

// Divides o by l, and stores the output of the unit's rows. `column` is the first dimension of the thread.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void store_output(const Accumulators<HEAD_DIM, M_TILES> &rows, const Shared<HEAD_DIM, M_TILES> &shared,
                            const gk_attention &call, const View &view, int kv_head, int column) {
  const int lane = lane_id(), warp = warp_id(), head_dim = call.kv.head_dim;
  // Every warp needs every l. They go through the memory of the maxima, which no warp reads since the last barrier.
  float *sums = shared.maxima;
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++)
      if (mt == warp && lane % 4 == 0) sums[mt * 16 + half * 8 + lane / 4] = rows.l[half * 2];
  }
  __syncthreads();
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = mt * 16 + half * 8 + lane / 4;
      if (row >= view.n_queries) continue;
      const float sum = sums[row];
      bf16 *out = output_of(call, view, kv_head, row);
#pragma unroll
      for (int nt = 0; nt < rows.N_TILES; nt++) {
        if (column + nt * 8 < head_dim)
          *reinterpret_cast<uint32_t *>(out + column + nt * 8) =
              pack_bf16(rows.o[mt][nt][half * 2] / sum, rows.o[mt][nt][half * 2 + 1] / sum);
      }
    }
  }
  if ((int)threadIdx.x < view.n_queries) clear_padding(call, view, kv_head, threadIdx.x);
}

}  // namespace
