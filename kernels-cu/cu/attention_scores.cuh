// Scores of a tile of keys, s = q Kᵀ: products, mask, and the maximum of each row.
//
// A warp has 16 of the tile's 64 tokens, and all query rows. Scores lie in registers as mma leaves them: for m-tile mt,
// s[mt][nt][half * 2 + i] is row mt * 16 + half * 8 + lane / 4 and token 16 · warp + 8 · nt + 2 · (lane % 4) + i.
#pragma once

#include "attention_load.cuh"
#include "attention_state.cuh"

namespace {

// Multiplies the queries with the keys of a stage. `s` starts from zero.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void multiply_keys(float (&s)[M_TILES][2][4], const Shared<HEAD_DIM, M_TILES> &shared, int stage, int lane,
                             int warp) {
  constexpr int STRIDE = Shared<HEAD_DIM, M_TILES>::STRIDE;
  const bf16 *key = shared.keys + (stage * TILE + warp * 16 + lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8;
  const bf16 *query = shared.queries + lane % 16 * STRIDE + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < HEAD_DIM; k += 16) {
    uint32_t b[4];
    load_matrix_x4(b, key + k);
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
      uint32_t a[4];
      load_matrix_x4(a, query + mt * 16 * STRIDE + k);
      mma_bf16(s[mt][0], a, b[0], b[1]);
      mma_bf16(s[mt][1], a, b[2], b[3]);
    }
  }
}

// Sets the scores of tokens that a row does not see to NOTHING.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void mask(float (&s)[M_TILES][2][4], const Shared<HEAD_DIM, M_TILES> &shared, int stage, const Tiles &tiles,
                    const View &view, int lane, int warp) {
  const bool tail = tiles.partition >= view.n_selected_partitions;
  const int *position = shared.positions + stage * TILE + warp * 16 + lane % 4 * 2;
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int at = view.position(mt * 16 + half * 8 + lane / 4);
      const int low = tail ? max(view.lowest(at), view.tail_start) : view.lowest(at);
      const int high = tail ? at : INT_MAX;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = position[i / 2 * 8 + i % 2];
        if (token < low || token > high) s[mt][i / 2][half * 2 + i % 2] = NOTHING;
      }
    }
  }
}

// Stores the largest score of each row over the tokens of this warp.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void store_maxima(const float (&s)[M_TILES][2][4], const Shared<HEAD_DIM, M_TILES> &shared, int lane,
                            int warp) {
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = fmaxf(fmaxf(s[mt][0][half * 2], s[mt][0][half * 2 + 1]),
                            fmaxf(s[mt][1][half * 2], s[mt][1][half * 2 + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
      if (lane % 4 == 0) shared.maxima[(mt * 16 + half * 8 + lane / 4) * WARPS + warp] = largest;
    }
  }
}

}  // namespace
