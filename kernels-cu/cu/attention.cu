// Attention over paged keys and values. One kernel serves decodes, verifications and prompts; a second one merges the
// states that several units have computed for the same rows. The method is the online softmax of FlashAttention (arXiv
// 2205.14135) with fixed partitions. docs/kernels.md, section Attention, has the equations and the reason why a row's
// bits depend on the row alone.
//
// A block of four warps takes up to 16 · M_TILES query rows of one KV head, tile by tile:
//   scores           warp w: all rows by 16 of the 64 tokens; a mask, and row maxima through shared memory
//   online softmax   warp w: probabilities of its scores in bf16, through shared memory; rescales its accumulators
//   products         warp w: all rows by a quarter of the dimensions, over all 64 tokens
// After a partition, its state is merged into the total. At the end, the block stores a state or the output.
#include "attention_accumulators.cuh"
#include "attention_load.cuh"
#include "attention_merge.cuh"
#include "attention_store.cuh"
#include "tuning.h"

namespace {

constexpr float LOG2_E = 1.4426950408889634f;

// The stages of a tile take `lane` and `warp` as arguments: their machine code is then as short as in one function.
template <int HEAD_DIM, int M_TILES>
__global__ void __launch_bounds__(THREADS, HEAD_DIM == 256 && M_TILES > 1 ? 1 : 2)
    attend(const gk_attention call, const float exponent_scale, const int stages) {
  GK_DYNAMIC_SHARED(base);
  const gk_unit unit = call.units[blockIdx.x];
  if (unit.n_queries == 0) return;
  const int kv_head = blockIdx.y;
  const int lane = lane_id(), warp = warp_id();
  const View view = view_of(call, unit, kv_head);
  const Shared<HEAD_DIM, M_TILES> shared(base, stages);

  load_queries(shared, call, view, kv_head);  // in one group with the first keys
  Tiles tiles = first_tile(view, unit);
  Loader<HEAD_DIM, M_TILES> loader(call.kv, view, shared, tiles, kv_head);
  for (int stage = 0; stage < stages; stage++) {
    loader.keys(stage);
    if (stage + 1 < stages) loader.values(stage);
  }

  Accumulators<HEAD_DIM, M_TILES> rows;
  for (int stage = 0; !tiles.done(); stage = stage + 1 == stages ? 0 : stage + 1) {
    wait_for_all_but(2 * stages - 2);  // the keys of this tile have landed
    __syncthreads();                   // every warp has finished with the values of the last tile
    loader.values(stage == 0 ? stages - 1 : stage - 1);

    float s[M_TILES][2][4] = {};
    multiply_keys(s, shared, stage, lane, warp);
    if (!seen_by_all(tiles, view)) mask(s, shared, stage, tiles, view, lane, warp);
    store_maxima(s, shared, lane, warp);
    __syncthreads();     // the maxima are complete, and no warp reads the keys any more
    loader.keys(stage);  // the keys of the tile `stages` further

    rows.update_softmax(s, shared, exponent_scale, lane, warp);
    wait_for_all_but(2 * stages - 1);  // the values of this tile have landed
    __syncthreads();                   // for every warp, and the probabilities are complete
    rows.multiply_values(shared, stage, lane, warp);

    const int partition = tiles.partition;
    next_tile(tiles, view);
    if (tiles.partition != partition && unit.state < 0) {
      rows.merge_total(shared, warp);
      if (!tiles.done()) rows.save_total(shared);
    }
  }

  const int column = warp * (HEAD_DIM / WARPS) + lane % 4 * 2;
  if (unit.state >= 0) {
    store_state(rows, state_at(call, unit.state, kv_head), view.n_queries, column, call.kv.head_dim);
    return;
  }
  store_output(rows, shared, call, view, kv_head, column);
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
