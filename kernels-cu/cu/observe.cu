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
#include "device.cuh"
#include "select.cuh"

namespace {

using namespace gk;

constexpr int TILE = GK_OBSERVED_TILE;

// An observation, and the facts of its sequence.
struct Asked {
  gk_observation what;
  const uint32_t *block_table;
  int first_row;  // its first observing row, in the batch
  int first_position;
  int n_tiles;
  int group;  // query heads of a KV head
  int n_queries;
  bool keeps_scores;
};

GK_DEVICE Asked read_asked(const gk_observe &call, int at) {
  Asked asked;
  asked.what = call.observations[at];
  const gk_seq &seq = call.batch.seqs[asked.what.seq];
  asked.block_table = call.batch.block_tables + seq.block_table;
  asked.first_row = seq.first_row + asked.what.first_row;
  asked.first_position = seq.first_position + asked.what.first_row;
  asked.n_tiles = (asked.first_position + asked.what.n_rows - 1) / TILE + 1;
  asked.group = call.n_heads / call.kv.n_kv_heads;
  asked.n_queries = asked.what.n_rows * asked.group;
  asked.keeps_scores = asked.n_queries <= GK_KEPT_QUERIES;
  return asked;
}

// Plane 0 holds the sums of a KV head. The other planes hold kept scores, one query row each. Plane 1 later holds the
// pooled values.
GK_DEVICE float *plane(const gk_observe &call, const Asked &asked, int kv_head, int at) {
  const int64_t n_planes = asked.keeps_scores ? asked.n_queries + 1 : 2;
  return call.scores + asked.what.scores + (kv_head * n_planes + at) * asked.n_tiles * TILE;
}

// (m, l) of each tile of a query row, followed by (m, 1 / l) of the whole row.
GK_DEVICE float2 *stats_of(const gk_observe &call, const Asked &asked, int kv_head, int query) {
  float2 *all = reinterpret_cast<float2 *>(call.stats + asked.what.stats);
  return all + ((int64_t)kv_head * asked.n_queries + query) * (asked.n_tiles + 1);
}

GK_DEVICE int earliest_seen(const gk_observe &call, int position) {
  return call.window > 0 ? max(0, position - call.window + 1) : 0;
}

// exp(scale · x) is exp2(exponent_factor · x).
GK_DEVICE float exponent_factor(const gk_observe &call) { return call.scale * 1.44269504f; }

// ---- Tiles ----

// A warp takes one tile of keys of one KV head. It copies the keys to its own part of shared memory and multiplies all
// query rows with them, 16 at a time, without a barrier. With 64 keys of 256 bytes a warp, three blocks of an SM hold
// 192 KB of keys, in flight or in use; about 30 KB in flight would suffice. With SUMS, the kernel recomputes scores and
// sums probabilities, for observations that keep no scores; without SUMS, it writes the softmax statistics of tiles.
template <int K_STEPS, int WARPS, bool SUMS>
__global__ void __launch_bounds__(WARPS * 32) observe_tiles(gk_observe call) {
  constexpr int STRIDE = K_STEPS * 16 + 8;  // an odd multiple of 16 bytes: ldmatrix without bank conflicts
  constexpr int CHUNKS = K_STEPS * 2;       // chunks of 16 bytes in a key
  GK_DYNAMIC_SHARED(shared);
  bf16 *keys = reinterpret_cast<bf16 *>(shared) + warp_id() * TILE * STRIDE;

  const int lane = lane_id(), kv_head = blockIdx.y, tile = blockIdx.x * WARPS + warp_id();
  const Asked asked = read_asked(call, blockIdx.z);
  const int n_positions = asked.first_position + asked.what.n_rows, tile_start = tile * TILE;
  const bool is_seen = tile < asked.n_tiles && tile_start + TILE > earliest_seen(call, asked.first_position);
  if (SUMS) {
    const int end = asked.what.first_candidate + asked.what.n_candidates;
    if (asked.keeps_scores || tile_start >= end || tile_start + TILE <= asked.what.first_candidate) return;
  } else if (!is_seen) {
    return;
  }
  const int n_queries = is_seen ? asked.n_queries : 0;

  if (is_seen) {
    const int head_dim = call.kv.head_dim, size = call.kv.block_size;
#pragma unroll
    for (int run = 0; run < TILE / 16; run++) {  // 16 positions lie in one block
      const int position = tile_start + run * 16;
      const bool exists = position < n_positions;
      const bf16 *from = as_bf16(call.kv.base);
      if (exists) {
        from = key_address(call.kv, call.kv.layer, kv_head, asked.block_table[position / size], position % size);
      }
#pragma unroll
      for (int i = 0; i < CHUNKS / 2; i++) {
        const int chunk = i * 32 + lane, key = chunk / CHUNKS, col = chunk % CHUNKS * 8;
        const bool valid = position + key < n_positions && col < head_dim;
        copy_async_16(keys + (run * 16 + key) * STRIDE + col, valid ? from + key * head_dim + col : from, valid);
      }
    }
  }
  copy_async_commit();

  // The layout of mma: this lane holds rows lane / 4 and lane / 4 + 8, and columns 2 (lane % 4) and the next.
  const int row = lane >> 2, column = (lane & 3) * 2;
  const float factor = exponent_factor(call);
  float sums[TILE / 8][2] = {};
  for (int first = 0; first < n_queries; first += 16) {
    uint32_t a[K_STEPS][4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = first + row + half * 8;
      const bool exists = query < n_queries;
      const int token = exists ? query / asked.group : 0, head = kv_head * asked.group + query - token * asked.group;
      const bf16 *q = as_bf16(call.q) + (asked.first_row + token) * call.q_stride;
      q += (exists ? head : 0) * call.kv.head_dim;
#pragma unroll
      for (int k = 0; k < K_STEPS; k++) {
#pragma unroll
        for (int part = 0; part < 2; part++) {
          const int col = k * 16 + part * 8 + column;
          const bool valid = exists && col < call.kv.head_dim;
          a[k][part * 2 + half] = valid ? *reinterpret_cast<const uint32_t *>(q + col) : 0;
        }
      }
    }
    if (first == 0) {  // the queries are in flight too
      copy_async_wait<0>();
      __syncwarp();
    }
    float s[TILE / 8][4] = {};
    const bf16 *matrix = keys + ((lane >> 4) * 8 + (lane & 7)) * STRIDE + (lane >> 3 & 1) * 8;
#pragma unroll
    for (int k = 0; k < K_STEPS; k++) {
#pragma unroll
      for (int pair = 0; pair < TILE / 16; pair++) {
        uint32_t b[4];
        load_matrix_x4(b, matrix + pair * 16 * STRIDE + k * 16);
        mma_bf16(s[2 * pair], a[k], b[0], b[1]);
        mma_bf16(s[2 * pair + 1], a[k], b[2], b[3]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = first + row + half * 8;
      const bool exists = query < n_queries;
      const int last = asked.first_position + (exists ? query / asked.group : 0), start = earliest_seen(call, last);
      const auto sees = [&](int position) { return exists && position >= start && position <= last; };
      if (SUMS) {
        const float2 stats = exists ? stats_of(call, asked, kv_head, query)[asked.n_tiles] : make_float2(0, 0);
#pragma unroll
        for (int i = 0; i < TILE / 4; i++) {
          const float p = exp2f((s[i / 2][half * 2 + i % 2] - stats.x) * factor) * stats.y;
          if (sees(tile_start + i / 2 * 8 + column + i % 2)) sums[i / 2][i % 2] += p;
        }
        continue;
      }
      if (asked.keeps_scores && exists) {
        float *to = plane(call, asked, kv_head, 1 + query) + tile_start + column;
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
          *reinterpret_cast<float2 *>(to + n * 8) = make_float2(s[n][half * 2], s[n][half * 2 + 1]);
        }
      }
      float m = -INFINITY, l = 0;
#pragma unroll
      for (int i = 0; i < TILE / 4; i++) {
        if (sees(tile_start + i / 2 * 8 + column + i % 2)) m = fmaxf(m, s[i / 2][half * 2 + i % 2]);
      }
      m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 1));
      m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 2));
#pragma unroll
      for (int i = 0; i < TILE / 4; i++) {
        const float p = exp2f((s[i / 2][half * 2 + i % 2] - m) * factor);
        if (sees(tile_start + i / 2 * 8 + column + i % 2)) l += p;
      }
      l += __shfl_xor_sync(ALL_LANES, l, 1);
      l += __shfl_xor_sync(ALL_LANES, l, 2);
      if (exists && (lane & 3) == 0) stats_of(call, asked, kv_head, query)[tile] = make_float2(m, l);
    }
  }
  if (SUMS) {
    float *to = plane(call, asked, kv_head, 0) + tile_start + column;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int other = 4; other < 32; other *= 2) {
        sums[n][0] += __shfl_xor_sync(ALL_LANES, sums[n][0], other);
        sums[n][1] += __shfl_xor_sync(ALL_LANES, sums[n][1], other);
      }
      if (lane < 4) *reinterpret_cast<float2 *>(to + n * 8) = make_float2(sums[n][0], sums[n][1]);
    }
  }
}

// ---- Softmax ----

constexpr int SOFTMAX_WARPS = 4;

// A warp merges the tiles that a query row sees: lane i takes tiles i modulo 32, then the lanes merge in a tree.
__global__ void __launch_bounds__(SOFTMAX_WARPS * 32) merge_tiles(gk_observe call) {
  const Asked asked = read_asked(call, blockIdx.z);
  const int query = blockIdx.x * SOFTMAX_WARPS + warp_id();
  if (query >= asked.n_queries) return;
  const int last = asked.first_position + query / asked.group;
  const int first_tile = earliest_seen(call, last) / TILE, last_tile = last / TILE;
  const int start = first_tile + ((lane_id() - first_tile) & 31);
  float2 *stats = stats_of(call, asked, blockIdx.y, query);
  float m = -INFINITY, l = 0;
  for (int tile = start; tile <= last_tile; tile += 32) m = fmaxf(m, stats[tile].x);
#pragma unroll
  for (int other = 16; other; other /= 2) m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, other));
  for (int tile = start; tile <= last_tile; tile += 32) {
    l += stats[tile].y * exp2f((stats[tile].x - m) * exponent_factor(call));
  }
#pragma unroll
  for (int other = 16; other; other /= 2) l += __shfl_xor_sync(ALL_LANES, l, other);
  if (lane_id() == 0) stats[asked.n_tiles] = make_float2(m, 1.0f / l);
}

// ---- Sums ----

constexpr int SUM_THREADS = 128;

// A thread sums four positions over the kept scores of all query rows, in their order.
__global__ void __launch_bounds__(SUM_THREADS) sum_kept(gk_observe call) {
  const Asked asked = read_asked(call, blockIdx.z);
  const int start = asked.what.first_candidate, end = start + asked.what.n_candidates;
  const int at = (blockIdx.x * SUM_THREADS + threadIdx.x) * 4;
  if (!asked.keeps_scores || at >= end || at + 4 <= start) return;
  const float factor = exponent_factor(call);
  float sums[4] = {};
#pragma unroll 4
  for (int query = 0; query < asked.n_queries; query++) {
    const int last = asked.first_position + query / asked.group, earliest = earliest_seen(call, last);
    if (at > last || at + 4 <= earliest) continue;
    const float2 stats = stats_of(call, asked, blockIdx.y, query)[asked.n_tiles];
    const float4 four = *reinterpret_cast<const float4 *>(plane(call, asked, blockIdx.y, 1 + query) + at);
    const float s[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float p = exp2f((s[i] - stats.x) * factor) * stats.y;
      if (at + i >= earliest && at + i <= last) sums[i] += p;
    }
  }
  float *to = plane(call, asked, blockIdx.y, 0) + at;
  *reinterpret_cast<float4 *>(to) = make_float4(sums[0], sums[1], sums[2], sums[3]);
}

// ---- Selection ----

// Scores of the candidates (sums, block sums or pooled sums), from the first one on. All threads of a block take part.
GK_DEVICE const float *pooled(const gk_observe &call, const Asked &asked, int kv_head, int n) {
  const gk_observation &what = asked.what;
  const float *sums = plane(call, asked, kv_head, 0) + what.first_candidate;
  if (what.granularity == 1 && what.pool == GK_POOL_NONE) return sums;
  float *to = plane(call, asked, kv_head, 1);
  for (int i = threadIdx.x; i < n; i += SELECT_THREADS) {
    float sum = 0, highest = 0;
    if (what.granularity > 1) {
      for (int j = i * what.granularity; j < (i + 1) * what.granularity; j++) sum += sums[j];
    } else {
      const int params = what.pool_width / 2;
      for (int j = max(0, i - params); j <= min(n - 1, i + params); j++) {
        sum += sums[j];
        highest = fmaxf(highest, sums[j]);
      }
      if (what.pool == GK_POOL_AVERAGE) sum /= (float)what.pool_width;
    }
    to[i] = what.pool == GK_POOL_MAX ? highest : sum;
  }
  __syncthreads();
  return to;
}

// One block selects for one KV head.
__global__ void __launch_bounds__(SELECT_THREADS) select_candidates(gk_observe call) {
  const Asked asked = read_asked(call, blockIdx.y);
  const gk_observation &what = asked.what;
  if (what.n_selected == 0) return;
  const int kv_head = blockIdx.x, n = what.n_candidates / what.granularity;
  const float *scores = pooled(call, asked, kv_head, n);
  uint32_t *out = call.out + what.out + (int64_t)kv_head * what.n_selected;
  select_highest(scores, n, what.n_selected, what.first_candidate / what.granularity, out);
}

template <int K_STEPS>
int32_t launch_tiles(const gk_observe &call, bool sums, gk_stream stream) {
  constexpr int WARPS = K_STEPS > 8 ? 2 : 4;  // at most 69 KB; sm_89 has 99
  constexpr int SHARED = WARPS * TILE * (K_STEPS * 16 + 8) * (int)sizeof(bf16);
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

bool fits(const gk_observation &what, const gk_observe &call) {
  const bool in_blocks = what.granularity == call.kv.block_size;
  return what.seq >= 0 && what.seq < call.batch.n_seqs && what.first_row >= 0 && what.n_rows > 0 &&
         what.first_candidate >= 0 && what.n_candidates >= 0 &&
         (int64_t)what.first_candidate + what.n_candidates <= call.max_positions &&
         (what.granularity == 1 || (in_blocks && what.pool == GK_POOL_NONE)) &&
         what.first_candidate % what.granularity == 0 && what.n_candidates % what.granularity == 0 &&
         what.n_selected >= 0 && what.n_selected <= what.n_candidates / what.granularity &&
         (what.pool == GK_POOL_NONE ||
          ((what.pool == GK_POOL_AVERAGE || what.pool == GK_POOL_MAX) && what.pool_width > 0 && what.pool_width % 2)) &&
         what.scores >= 0 && what.scores % 4 == 0 && what.stats >= 0 && what.stats % 2 == 0 && what.out >= 0;
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
    const gk_observation &what = call->host_observations[i];
    GK_REQUIRE(fits(what, *call));
    GK_REQUIRE(what.n_rows <= INT32_MAX / call->n_heads);
    const int n_queries = what.n_rows * (call->n_heads / n_kv_heads);
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
