// Selects the cached tokens that rows attend to most (SnapKV, arXiv 2404.14469). For the query rows r of an observation
// (tokens times query heads of a KV head, in this order) and the positions j that r sees,
//   m_r = max_j s_rj      l_r = Σ_j exp(c (s_rj - m_r))      score_j = Σ_r exp(c (s_rj - m_r)) / l_r
// then pooling, or sums over blocks, and a selection of the highest scores.
//
// Reading keys bounds the time. Few query rows keep their scores, 4 bytes each beside the 2 · head_dim of a key, and
// keys are read once. Many query rows read the keys a second time. Four launches: tiles, softmax, sums, selection.
//
// Every sum has one order, a function of its query rows and of positions alone: tiles lie at multiples of
// GK_OBSERVED_TILE, and a position that a row does not see adds exactly nothing.
#include "observation.cuh"
#include "observe_tiles.cuh"
#include "select.cuh"

namespace {

// ---- Softmax ----

constexpr int SOFTMAX_WARPS = 4;

// A warp merges the tiles that a query row sees: lane i takes tiles i modulo 32, then the lanes merge in a tree.
__global__ void __launch_bounds__(SOFTMAX_WARPS * 32) merge_tiles(gk_observe call) {
  const Observation observation = read_observation(call, blockIdx.z);
  const int query = blockIdx.x * SOFTMAX_WARPS + warp_id();
  if (query >= observation.n_queries) return;
  const int last = observation.first_position + query / observation.group;
  const int first_tile = earliest_seen(call, last) / TILE, last_tile = last / TILE;
  const int start = first_tile + ((lane_id() - first_tile) & 31);
  float2 *stats = stats_of(call, observation, blockIdx.y, query);
  float m = -INFINITY, l = 0;
  for (int tile = start; tile <= last_tile; tile += 32) m = fmaxf(m, stats[tile].x);
#pragma unroll
  for (int other = 16; other; other /= 2) m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, other));
  for (int tile = start; tile <= last_tile; tile += 32) {
    l += stats[tile].y * exp2f((stats[tile].x - m) * exponent_factor(call));
  }
#pragma unroll
  for (int other = 16; other; other /= 2) l += __shfl_xor_sync(ALL_LANES, l, other);
  if (lane_id() == 0) stats[observation.n_tiles] = make_float2(m, 1.0f / l);
}

// ---- Sums ----

constexpr int SUM_THREADS = 128;

// A thread sums four positions over the kept scores of all query rows, in their order.
__global__ void __launch_bounds__(SUM_THREADS) sum_kept(gk_observe call) {
  const Observation observation = read_observation(call, blockIdx.z);
  const int start = observation.spec.first_candidate, end = start + observation.spec.n_candidates;
  const int at = (blockIdx.x * SUM_THREADS + threadIdx.x) * 4;
  if (!observation.keeps_scores || at >= end || at + 4 <= start) return;
  const float factor = exponent_factor(call);
  float sums[4] = {};
#pragma unroll 4
  for (int query = 0; query < observation.n_queries; query++) {
    const int last = observation.first_position + query / observation.group, earliest = earliest_seen(call, last);
    if (at > last || at + 4 <= earliest) continue;
    const float2 stats = stats_of(call, observation, blockIdx.y, query)[observation.n_tiles];
    const float4 four = *reinterpret_cast<const float4 *>(plane(call, observation, blockIdx.y, 1 + query) + at);
    const float s[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float p = exp2f((s[i] - stats.x) * factor) * stats.y;
      if (at + i >= earliest && at + i <= last) sums[i] += p;
    }
  }
  float *to = plane(call, observation, blockIdx.y, 0) + at;
  *reinterpret_cast<float4 *>(to) = make_float4(sums[0], sums[1], sums[2], sums[3]);
}

// ---- Selection ----

// Scores of the candidates (sums, block sums or pooled sums), from the first one on. All threads of a block take part.
GK_DEVICE const float *pooled(const gk_observe &call, const Observation &observation, int kv_head, int n) {
  const gk_observation &spec = observation.spec;
  const float *sums = plane(call, observation, kv_head, 0) + spec.first_candidate;
  if (spec.granularity == 1 && spec.pool == GK_POOL_NONE) return sums;
  float *to = plane(call, observation, kv_head, 1);
  for (int i = threadIdx.x; i < n; i += SELECT_THREADS) {
    float sum = 0, highest = 0;
    if (spec.granularity > 1) {
      for (int j = i * spec.granularity; j < (i + 1) * spec.granularity; j++) sum += sums[j];
    } else {
      const int params = spec.pool_width / 2;
      for (int j = max(0, i - params); j <= min(n - 1, i + params); j++) {
        sum += sums[j];
        highest = fmaxf(highest, sums[j]);
      }
      if (spec.pool == GK_POOL_AVERAGE) sum /= (float)spec.pool_width;
    }
    to[i] = spec.pool == GK_POOL_MAX ? highest : sum;
  }
  __syncthreads();
  return to;
}

// One block selects for one KV head.
__global__ void __launch_bounds__(SELECT_THREADS) select_candidates(gk_observe call) {
  const Observation observation = read_observation(call, blockIdx.y);
  const gk_observation &spec = observation.spec;
  if (spec.n_selected == 0) return;
  const int kv_head = blockIdx.x, n = spec.n_candidates / spec.granularity;
  const float *scores = pooled(call, observation, kv_head, n);
  uint32_t *out = call.out + spec.out + (int64_t)kv_head * spec.n_selected;
  select_highest(scores, n, spec.n_selected, spec.first_candidate / spec.granularity, out);
}

template <int K_STEPS>
int32_t launch_tiles(const gk_observe &call, bool sums, gk_stream stream) {
  constexpr int WARPS = K_STEPS > 8 ? 2 : 4;  // at most 69 KB; sm_89 has 99
  constexpr int SHARED = WARPS * TILE * KEY_STRIDE<K_STEPS> * (int)sizeof(bf16);
  auto kernel = sums ? observe_tiles<K_STEPS, WARPS, true> : observe_tiles<K_STEPS, WARPS, false>;
  const int32_t error = GK_ALLOW_SHARED(kernel, SHARED);
  if (error) return error;
  const dim3 grid(ceil_div(ceil_div(call.max_positions, TILE), WARPS), call.kv.n_kv_heads, call.n_observations);
  return GK_LAUNCH(kernel, grid, dim3(WARPS * 32), SHARED, stream, call);
}

int32_t launch_tiles(const gk_observe &call, bool sums, gk_stream stream) {
  const int head_dim = call.kv.head_dim;
  if (head_dim <= 32) return launch_tiles<2>(call, sums, stream);
  if (head_dim <= 64) return launch_tiles<4>(call, sums, stream);
  if (head_dim <= 96) return launch_tiles<6>(call, sums, stream);
  if (head_dim <= 128) return launch_tiles<8>(call, sums, stream);
  return launch_tiles<16>(call, sums, stream);
}

bool fits(const gk_observation &spec, const gk_observe &call) {
  const bool in_blocks = spec.granularity == call.kv.block_size;
  return spec.seq >= 0 && spec.seq < call.batch.n_seqs && spec.first_row >= 0 && spec.n_rows > 0 &&
         spec.first_candidate >= 0 && spec.n_candidates >= 0 &&
         (int64_t)spec.first_candidate + spec.n_candidates <= call.max_positions &&
         (spec.granularity == 1 || (in_blocks && spec.pool == GK_POOL_NONE)) &&
         spec.first_candidate % spec.granularity == 0 && spec.n_candidates % spec.granularity == 0 &&
         spec.n_selected >= 0 && spec.n_selected <= spec.n_candidates / spec.granularity &&
         (spec.pool == GK_POOL_NONE ||
          ((spec.pool == GK_POOL_AVERAGE || spec.pool == GK_POOL_MAX) && spec.pool_width > 0 && spec.pool_width % 2)) &&
         spec.scores >= 0 && spec.scores % 4 == 0 && spec.stats >= 0 && spec.stats % 2 == 0 && spec.out >= 0;
}

}  // namespace

GK_LAUNCHER(observe)(const gk_observe *call, gk_stream stream) {
  if (call->n_observations == 0) return 0;
  const int n_kv_heads = call->kv.n_kv_heads;
  GK_REQUIRE(is_pool(call->kv) && call->kv.layer >= 0 && call->kv.layer < call->kv.n_layers);
  GK_REQUIRE(call->n_observations > 0 && call->n_observations <= 65535 && n_kv_heads <= 65535);
  GK_REQUIRE(call->n_heads > 0 && call->n_heads % n_kv_heads == 0 && call->max_positions > 0 && call->window >= 0);
  GK_REQUIRE(call->q_stride >= (int64_t)call->n_heads * call->kv.head_dim && call->q_stride % GK_K_STEP == 0);
  GK_REQUIRE(is_aligned(call->q, 16) && is_aligned(call->scores, 16) && is_aligned(call->stats, 8));
  int max_queries = 0;
  bool keeps = false, recomputes = false;
  for (int i = 0; i < call->n_observations; i++) {
    const gk_observation &spec = call->host_observations[i];
    GK_REQUIRE(fits(spec, *call));
    GK_REQUIRE(spec.n_rows <= INT32_MAX / call->n_heads);
    const int n_queries = spec.n_rows * (call->n_heads / n_kv_heads);
    max_queries = max(max_queries, n_queries);
    (n_queries <= GK_KEPT_QUERIES ? keeps : recomputes) = true;
  }
  int32_t error = launch_tiles(*call, false, stream);
  if (error) return error;
  const dim3 softmax(ceil_div(max_queries, SOFTMAX_WARPS), n_kv_heads, call->n_observations);
  error = GK_LAUNCH(merge_tiles, softmax, dim3(SOFTMAX_WARPS * 32), 0, stream, *call);
  if (!error && keeps) {
    const dim3 sums(ceil_div(call->max_positions, 4 * SUM_THREADS), n_kv_heads, call->n_observations);
    error = GK_LAUNCH(sum_kept, sums, dim3(SUM_THREADS), 0, stream, *call);
  }
  if (!error && recomputes) error = launch_tiles(*call, true, stream);
  if (error) return error;
  const dim3 selections(n_kv_heads, call->n_observations);
  return GK_LAUNCH(select_candidates, selections, dim3(SELECT_THREADS), 0, stream, *call);
}
