// The accumulators (m, l, o) of an attention block, and the stages that change them: the online softmax, the products
// with values, and the merge with the total of earlier partitions.
#pragma once

#include "attention_scores.cuh"

namespace {

constexpr uint32_t ONES = 0x3f803f80u;  // two ones, bf16

// The registers of a thread. It holds rows lane / 4 and lane / 4 + 8 of every m-tile, and a quarter of the dimensions.
// Warp w alone holds l of m-tile w.
template <int HEAD_DIM, int M_TILES>
struct Accumulators {
  using Memory = Shared<HEAD_DIM, M_TILES>;
  static constexpr int N_TILES = HEAD_DIM / WARPS / 8;  // n-tiles of a warp, eight dimensions each

  bool has_total = false;  // shared memory holds the total of earlier partitions
  float m[M_TILES][2];
  float l[4] = {};
  float o[M_TILES][N_TILES][4] = {};

  GK_DEVICE_MEMBER Accumulators() {
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) m[mt][0] = m[mt][1] = NOTHING;
  }

  // One step of the online softmax: rescales the accumulators to the new maxima, and stores the tile's probabilities.
  // They are relative to a whole power of two, so that rescaling is exact.
  GK_DEVICE_MEMBER void update_softmax(const float (&s)[M_TILES][2][4], const Memory &shared, float exponent_scale,
                                       int lane, int warp) {
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = mt * 16 + half * 8 + lane / 4;
        const float4 of_warps = *reinterpret_cast<const float4 *>(shared.maxima + row * WARPS);
        const float largest = fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w));
        const float next_m = fmaxf(m[mt][half], ceilf(largest * exponent_scale));
        const float factor = power_of_two(m[mt][half] - next_m);
        const float offset = next_m == NOTHING ? 0.0f : -next_m;
        m[mt][half] = next_m;
#pragma unroll
        for (int nt = 0; nt < 2; nt++) {
          const float first = exp2_fast(fmaf(s[mt][nt][half * 2], exponent_scale, offset));
          const float second = exp2_fast(fmaf(s[mt][nt][half * 2 + 1], exponent_scale, offset));
          *reinterpret_cast<uint32_t *>(shared.p + row * Memory::P_STRIDE + warp * 16 + nt * 8 + lane % 4 * 2) =
              pack_bf16(first, second);
        }
#pragma unroll
        for (int nt = 0; nt < N_TILES; nt++) {
          o[mt][nt][half * 2] *= factor;
          o[mt][nt][half * 2 + 1] *= factor;
        }
        if (mt == warp) {
          l[half * 2] *= factor;
          l[half * 2 + 1] *= factor;
        }
      }
    }
  }

  // Adds the products of the probabilities with the values of a stage, 32 tokens at a time. A product with a column of
  // ones sums the probabilities.
  GK_DEVICE_MEMBER void multiply_values(const Memory &shared, int stage, int lane, int warp) {
    const bf16 *value = shared.values + (stage * TILE + lane) * Memory::STRIDE + warp * (HEAD_DIM / WARPS);
    const bf16 *p = shared.p + lane % 16 * Memory::P_STRIDE + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < TILE; k += 32) {
      uint32_t a[M_TILES][2][4];
#pragma unroll
      for (int mt = 0; mt < M_TILES; mt++) {
        load_matrix_x4(a[mt][0], p + mt * 16 * Memory::P_STRIDE + k);
        load_matrix_x4(a[mt][1], p + mt * 16 * Memory::P_STRIDE + k + 16);
        if (mt == warp) {
          mma_bf16(l, a[mt][0], ONES, ONES);
          mma_bf16(l, a[mt][1], ONES, ONES);
        }
      }
#pragma unroll
      for (int nt = 0; nt < N_TILES; nt++) {
        uint32_t b[4];
        load_matrix_x4_transposed(b, value + k * Memory::STRIDE + nt * 8);
#pragma unroll
        for (int mt = 0; mt < M_TILES; mt++) {
          mma_bf16(o[mt][nt], a[mt][0], b[0], b[1]);
          mma_bf16(o[mt][nt], a[mt][1], b[2], b[3]);
        }
      }
    }
  }

  // Merges the partition's state into the total of earlier partitions. The registers hold the result.
  GK_DEVICE_MEMBER void merge_total(const Memory &shared, int warp) {
    const float *total = shared.total + threadIdx.x;
    auto next = [&] {
      const float value = has_total ? *total : 0.0f;
      total += THREADS;
      return value;
    };
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float total_m = next();
        const Merge merge(has_total ? total_m : NOTHING, m[mt][half]);
        m[mt][half] = merge.m;
#pragma unroll
        for (int nt = 0; nt < N_TILES; nt++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) o[mt][nt][i] = merge(next(), o[mt][nt][i]);
        }
        const float *total_l = shared.total + (Memory::TOTAL - 2 + half) * THREADS + threadIdx.x;
        if (mt == warp) l[2 * half] = merge(has_total ? *total_l : 0.0f, l[2 * half]);
      }
    }
  }

  // Saves the registers as the total of all partitions so far, and clears them for the next partition.
  GK_DEVICE_MEMBER void save_total(const Memory &shared) {
    float *total = shared.total + threadIdx.x;
    auto put = [&](float value) {
      *total = value;
      total += THREADS;
    };
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        put(m[mt][half]);
        m[mt][half] = NOTHING;
#pragma unroll
        for (int nt = 0; nt < N_TILES; nt++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            put(o[mt][nt][i]);
            o[mt][nt][i] = 0.0f;
          }
        }
      }
    }
    put(l[0]);
    put(l[2]);
    l[0] = l[1] = l[2] = l[3] = 0.0f;
    has_total = true;
  }
};

}  // namespace
