// Attention over paged keys and values. One kernel serves decodes, verifications and prompts; a second one merges the
// states that several units have computed for the same rows. The method is the online softmax of FlashAttention (arXiv
// 2205.14135) with fixed partitions. docs/kernels.md, section Attention, has the equations and the reason why a row's
// bits depend on the row alone.
//
// A block of four warps takes up to 16 · M_TILES query rows of one KV head, tile by tile:
//   scores    warp w: all rows by 16 of the 64 tokens; row maxima through shared memory, then probabilities in bf16
//   products  warp w: all rows by a quarter of the dimensions, over all 64 tokens
#include "attention_load.cuh"
#include "attention_merge.cuh"
#include "attention_state.cuh"
#include "tuning.h"

namespace {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr uint32_t ONES = 0x3f803f80u;  // two ones, bf16

template <int HEAD_DIM, int M_TILES>
__global__ void __launch_bounds__(THREADS, HEAD_DIM == 256 && M_TILES > 1 ? 1 : 2)
    attend(const gk_attention call, const float exponent_scale, const int stages) {
  using Memory = Shared<HEAD_DIM, M_TILES>;
  constexpr int STRIDE = Memory::STRIDE, P_STRIDE = Memory::P_STRIDE;
  constexpr int N_TILES = HEAD_DIM / WARPS / 8;  // n-tiles of a warp, eight dimensions each
  GK_DYNAMIC_SHARED(base);
  const gk_unit unit = call.units[blockIdx.x];
  if (unit.n_queries == 0) return;
  const int kv_head = blockIdx.y;
  const int lane = lane_id(), warp = warp_id();
  const View view = view_of(call, unit, kv_head);
  const Memory shared(base, stages);

  // Queries: they are copied in one group with the first keys.
#pragma unroll
  for (int pass = 0; pass < M_TILES; pass++) {
    const int row = pass * 16 + (int)threadIdx.x / 8;
    const bool valid = row < view.n_queries;
    const int query = view.first_query + (valid ? row : 0);
    const int head = kv_head * view.group + query % view.group;
    const int64_t of_token = (view.first_row + query / view.group) * call.q_stride;
    const bf16 *from = as_bf16(call.q) + of_token + head * call.kv.head_dim;
    copy_row<HEAD_DIM>(shared.queries + row * STRIDE, from, valid, call.kv.head_dim);
  }

  Tiles tiles = first_tile(view, unit);
  Loader<HEAD_DIM, M_TILES> loader(call.kv, view, shared, tiles, kv_head);
  for (int stage = 0; stage < stages; stage++) {
    loader.keys(stage);
    if (stage + 1 < stages) loader.values(stage);
  }

  // A thread holds rows lane / 4 and lane / 4 + 8 of every m-tile. Warp w alone holds l of m-tile w.
  float o[M_TILES][N_TILES][4] = {};
  float m[M_TILES][2];
  float l[4] = {};
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) m[mt][0] = m[mt][1] = NOTHING;
  bool parked = false;

  // Folds the partition's state into the parked total of earlier partitions. The registers hold the result.
  auto fold = [&] {
    float *total = shared.parked + threadIdx.x;
    auto next = [&] {
      const float value = parked ? *total : 0.0f;
      total += THREADS;
      return value;
    };
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float total_m = next();
        const Fold fold(parked ? total_m : NOTHING, m[mt][half]);
        m[mt][half] = fold.m;
#pragma unroll
        for (int nt = 0; nt < N_TILES; nt++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) o[mt][nt][i] = fold(next(), o[mt][nt][i]);
        }
        const float *total_l = shared.parked + (Memory::PARKED - 2 + half) * THREADS + threadIdx.x;
        if (mt == warp) l[2 * half] = fold(parked ? *total_l : 0.0f, l[2 * half]);
      }
    }
  };
  auto park = [&] {
    float *total = shared.parked + threadIdx.x;
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
    parked = true;
  };

  for (int stage = 0; !tiles.done(); stage = stage + 1 == stages ? 0 : stage + 1) {
    wait_for_all_but(2 * stages - 2);  // the keys of this tile have landed
    __syncthreads();                   // every warp has finished with the values of the last tile
    loader.values(stage == 0 ? stages - 1 : stage - 1);

    // Scores, and the largest of each row over the warp's 16 tokens.
    float s[M_TILES][2][4] = {};
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
    if (!seen_by_all(tiles, view)) {
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
    __syncthreads();     // the maxima are complete, and no warp reads the keys any more
    loader.keys(stage);  // the keys of the tile `stages` further

    // Probabilities are relative to a whole power of two, so that rescaling is exact.
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
          *reinterpret_cast<uint32_t *>(shared.p + row * P_STRIDE + warp * 16 + nt * 8 + lane % 4 * 2) =
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
    wait_for_all_but(2 * stages - 1);  // the values of this tile have landed
    __syncthreads();                   // for every warp, and the probabilities are complete

    // Products, 32 tokens at a time. A product with a column of ones sums the probabilities.
    const bf16 *value = shared.values + (stage * TILE + lane) * STRIDE + warp * (HEAD_DIM / WARPS);
    const bf16 *p = shared.p + lane % 16 * P_STRIDE + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < TILE; k += 32) {
      uint32_t a[M_TILES][2][4];
#pragma unroll
      for (int mt = 0; mt < M_TILES; mt++) {
        load_matrix_x4(a[mt][0], p + mt * 16 * P_STRIDE + k);
        load_matrix_x4(a[mt][1], p + mt * 16 * P_STRIDE + k + 16);
        if (mt == warp) {
          mma_bf16(l, a[mt][0], ONES, ONES);
          mma_bf16(l, a[mt][1], ONES, ONES);
        }
      }
#pragma unroll
      for (int nt = 0; nt < N_TILES; nt++) {
        uint32_t b[4];
        load_matrix_x4_transposed(b, value + k * STRIDE + nt * 8);
#pragma unroll
        for (int mt = 0; mt < M_TILES; mt++) {
          mma_bf16(o[mt][nt], a[mt][0], b[0], b[1]);
          mma_bf16(o[mt][nt], a[mt][1], b[2], b[3]);
        }
      }
    }

    const int partition = tiles.partition;
    next_tile(tiles, view);
    if (tiles.partition != partition && unit.state < 0) {
      fold();
      if (!tiles.done()) park();
    }
  }

  const int head_dim = call.kv.head_dim;
  const int column = warp * (HEAD_DIM / WARPS) + lane % 4 * 2;
  if (unit.state >= 0) {
    const State state = state_at(call, unit.state, kv_head);
#pragma unroll
    for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = mt * 16 + half * 8 + lane / 4;
        if (row >= view.n_queries) continue;
        if (mt == warp && lane % 4 == 0) {
          state.m[row] = m[mt][half];
          state.l[row] = l[half * 2];
        }
#pragma unroll
        for (int nt = 0; nt < N_TILES; nt++) {
          if (column + nt * 8 < head_dim)
            *reinterpret_cast<float2 *>(state.o + row * head_dim + column + nt * 8) =
                make_float2(o[mt][nt][half * 2], o[mt][nt][half * 2 + 1]);
        }
      }
    }
    return;
  }

  // Every warp needs every l. They go through the memory of the maxima, which no warp reads since the last barrier.
  float *sums = shared.maxima;
#pragma unroll
  for (int mt = 0; mt < M_TILES; mt++) {
#pragma unroll
    for (int half = 0; half < 2; half++)
      if (mt == warp && lane % 4 == 0) sums[mt * 16 + half * 8 + lane / 4] = l[half * 2];
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
      for (int nt = 0; nt < N_TILES; nt++) {
        if (column + nt * 8 < head_dim)
          *reinterpret_cast<uint32_t *>(out + column + nt * 8) =
              pack_bf16(o[mt][nt][half * 2] / sum, o[mt][nt][half * 2 + 1] / sum);
      }
    }
  }
  if ((int)threadIdx.x < view.n_queries) clear_padding(call, view, kv_head, threadIdx.x);
}

// ---- Launching

// The largest number of query rows a unit for which a block with one stage fits into `limit` bytes. The 99 KB of sm_89
// allow 16 for a head_dim over 128.
template <int HEAD_DIM>
int queries_within(int limit) {
  if (HEAD_DIM <= 128 && Shared<HEAD_DIM, 4>::bytes(1) <= limit) return 64;
  if (Shared<HEAD_DIM, 2>::bytes(1) <= limit) return 32;
  return Shared<HEAD_DIM, 1>::bytes(1) <= limit ? 16 : 0;
}

template <int HEAD_DIM, int M_TILES>
int32_t launch(const gk_attention &call, gk_stream stream) {
  using Memory = Shared<HEAD_DIM, M_TILES>;
  // Smaller devices get fewer stages, down to one. If one stage is still too much, the runtime refuses.
  const int limit = shared_bytes_limit();
  int stages = attention_stages(HEAD_DIM, M_TILES);
  while (stages > 1 && Memory::bytes(stages) > limit) stages--;
  auto kernel = attend<HEAD_DIM, M_TILES>;
  const int32_t error = GK_ALLOW_SHARED(kernel, Memory::bytes(stages));
  if (error != 0) return error;
  const dim3 grid(call.n_units, call.kv.n_kv_heads);
  return GK_LAUNCH(kernel, grid, dim3(THREADS), Memory::bytes(stages), stream, call, call.scale * LOG2_E, stages);
}

template <int HEAD_DIM>
int32_t launch_rows(const gk_attention &call, gk_stream stream) {
  switch (call.queries_per_unit) {
    case 16: return launch<HEAD_DIM, 1>(call, stream);
    case 32: return launch<HEAD_DIM, 2>(call, stream);
    default:
      if constexpr (HEAD_DIM <= 128) return launch<HEAD_DIM, 4>(call, stream);
      return GK_BAD_CALL;
  }
}

int32_t launch_units(const gk_attention &call, gk_stream stream) {
  if (call.kv.head_dim <= 32) return launch_rows<32>(call, stream);
  if (call.kv.head_dim <= 64) return launch_rows<64>(call, stream);
  if (call.kv.head_dim <= 96) return launch_rows<96>(call, stream);
  if (call.kv.head_dim <= 128) return launch_rows<128>(call, stream);
  return launch_rows<256>(call, stream);
}

}  // namespace

GK_LAUNCHER(attention)(const gk_attention *call, gk_stream stream) {
  GK_REQUIRE(call != nullptr);
  const gk_kv &kv = call->kv;
  const gk_batch &batch = call->batch;
  GK_REQUIRE(batch.n_rows >= 0 && call->n_units >= 0 && call->n_merges >= 0);
  if (batch.n_rows == 0) return 0;
  GK_REQUIRE(kv.head_dim > 0 && kv.head_dim <= GK_MAX_HEAD_DIM && kv.head_dim % 8 == 0);
  GK_REQUIRE(kv.block_size > 0 && kv.block_size % 16 == 0 && kv.arena_blocks > 0);
  GK_REQUIRE(kv.n_kv_heads > 0 && kv.n_kv_heads <= 65535 && kv.layer >= 0 && kv.layer < kv.n_layers);
  GK_REQUIRE(kv.arena_stride % 8 == 0 && kv.values_at % 8 == 0 && kv.block_stride % 8 == 0);
  GK_REQUIRE(kv.block_stride >= (int64_t)kv.block_size * kv.head_dim);
  GK_REQUIRE(call->n_heads > 0 && call->n_heads % kv.n_kv_heads == 0);
  const int64_t n_cols = ceil_div<int64_t>((int64_t)call->n_heads * kv.head_dim, GK_K_STEP) * GK_K_STEP;
  GK_REQUIRE(call->q_stride >= n_cols && call->q_stride % GK_K_STEP == 0);
  GK_REQUIRE(call->out_stride >= n_cols && call->out_stride % GK_K_STEP == 0);
  const int queries = call->queries_per_unit;
  GK_REQUIRE(queries == 16 || queries == 32 || (queries == 64 && kv.head_dim <= 128));
  GK_REQUIRE(call->scale > 0.0f && call->scale < INFINITY && call->window >= 0);
  GK_REQUIRE(call->q != nullptr && call->out != nullptr && kv.base != nullptr);
  GK_REQUIRE(batch.seqs != nullptr && batch.block_tables != nullptr);
  GK_REQUIRE(call->n_units == 0 || call->units != nullptr);
  GK_REQUIRE(call->n_merges == 0 || (call->merges != nullptr && call->states != nullptr));
  if (call->n_units > 0) {
    const int32_t error = launch_units(*call, stream);
    if (error != 0) return error;
  }
  if (call->n_merges == 0) return 0;
  const dim3 grid(call->n_merges, kv.n_kv_heads, ceil_div(queries, WARPS));
  return GK_LAUNCH(merge_states, grid, dim3(THREADS), 0, stream, *call);
}

GK_LAUNCHER(attention_queries)(int32_t head_dim) {
  GK_REQUIRE(head_dim > 0 && head_dim <= GK_MAX_HEAD_DIM);
  const int limit = shared_bytes_limit();
  return head_dim <= 128 ? queries_within<128>(limit) : queries_within<256>(limit);
}
