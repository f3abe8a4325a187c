// The tile kernel of an observation: scores of query rows with a tile of keys, then their softmax statistics, or the
// sums of their probabilities.
//
// A warp takes one tile of keys of one KV head. It copies the keys to its own part of shared memory and multiplies all
// query rows with them, 16 at a time, without a barrier. With 64 keys of 256 bytes a warp, three blocks of an SM hold
// 192 KB of keys, in flight or in use; about 30 KB in flight would suffice.
//
// Scores have the layout of mma: a lane holds rows lane / 4 and lane / 4 + 8, and columns 2 (lane % 4) and the next, of
// every eight positions.
#pragma once

#include "observation.cuh"

namespace {

// Values of a key in shared memory: an odd multiple of 16 bytes, so that ldmatrix meets no bank conflict.
template <int K_STEPS>
constexpr int KEY_STRIDE = K_STEPS * 16 + 8;

// Starts the copies of a tile's keys to the warp's part of shared memory. Absent keys and dimensions become zero.
template <int K_STEPS>
GK_DEVICE void load_keys(bf16 *keys, const gk_observe &call, const Observation &observation, int kv_head,
                         int tile_start) {
  constexpr int CHUNKS = K_STEPS * 2;  // chunks of 16 bytes in a key
  const int n_positions = observation.first_position + observation.spec.n_rows;
  const int head_dim = call.kv.head_dim, size = call.kv.block_size, lane = lane_id();
#pragma unroll
  for (int run = 0; run < TILE / 16; run++) {  // 16 positions lie in one block
    const int position = tile_start + run * 16;
    const bool exists = position < n_positions;
    const bf16 *from = as_bf16(call.kv.base);
    if (exists) {
      const int block = observation.block_table[position / size];
      from = key_address(call.kv, call.kv.layer, kv_head, block, position % size);
    }
#pragma unroll
    for (int i = 0; i < CHUNKS / 2; i++) {
      const int chunk = i * 32 + lane, key = chunk / CHUNKS, col = chunk % CHUNKS * 8;
      const bool valid = position + key < n_positions && col < head_dim;
      bf16 *to = keys + (run * 16 + key) * KEY_STRIDE<K_STEPS> + col;
      copy_async_16(to, valid ? from + key * head_dim + col : from, valid);
    }
  }
}

// Loads 16 query rows from `first` on, straight into the registers of mma: `row` and `column` are the place of the lane
// in them. Absent rows and dimensions are zero.
template <int K_STEPS>
GK_DEVICE void load_queries(uint32_t (&a)[K_STEPS][4], const gk_observe &call, const Observation &observation,
                            int kv_head, int first, int row, int column) {
  const int group = observation.group;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int query = first + row + half * 8;
    const bool exists = query < observation.n_queries;
    const int token = exists ? query / group : 0, head = kv_head * group + query - token * group;
    const bf16 *q = as_bf16(call.q) + (observation.first_row + token) * call.q_stride;
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
}

// Multiplies 16 query rows with the keys of the tile. `s` starts from zero.
template <int K_STEPS>
GK_DEVICE void multiply_keys(float (&s)[TILE / 8][4], const uint32_t (&a)[K_STEPS][4], const bf16 *keys) {
  constexpr int STRIDE = KEY_STRIDE<K_STEPS>;
  const int lane = lane_id();
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
}

// A query row of a lane, and the positions that it sees.
struct Query {
  int at;  // index among the observation's query rows
  bool exists;
  int start;  // the first position that it sees
  int last;

  GK_DEVICE_MEMBER Query(const gk_observe &call, const Observation &observation, int at)
      : at(at), exists(at < observation.n_queries) {
    last = observation.first_position + (exists ? at / observation.group : 0);
    start = earliest_seen(call, last);
  }
  GK_DEVICE_MEMBER bool sees(int position) const { return exists && position >= start && position <= last; }
};

// Adds the probabilities of a query row to the sums of the positions. `half` is the row's place in `s`, `position` the
// first position of the lane.
GK_DEVICE void add_probabilities(float (&sums)[TILE / 8][2], const float (&s)[TILE / 8][4], int half,
                                 const Query &query, float2 stats, int position, float factor) {
#pragma unroll
  for (int i = 0; i < TILE / 4; i++) {
    const float p = exp2f((s[i / 2][half * 2 + i % 2] - stats.x) * factor) * stats.y;
    if (query.sees(position + i / 2 * 8 + i % 2)) sums[i / 2][i % 2] += p;
  }
}

// The maximum m of a query row's scores over the tile, and the sum l of their exponentials. Four lanes share a row.
GK_DEVICE float2 softmax_stats(const float (&s)[TILE / 8][4], int half, const Query &query, int position,
                               float factor) {
  float m = -INFINITY, l = 0;
#pragma unroll
  for (int i = 0; i < TILE / 4; i++) {
    if (query.sees(position + i / 2 * 8 + i % 2)) m = fmaxf(m, s[i / 2][half * 2 + i % 2]);
  }
  m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 1));
  m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 2));
#pragma unroll
  for (int i = 0; i < TILE / 4; i++) {
    const float p = exp2f((s[i / 2][half * 2 + i % 2] - m) * factor);
    if (query.sees(position + i / 2 * 8 + i % 2)) l += p;
  }
  l += __shfl_xor_sync(ALL_LANES, l, 1);
  l += __shfl_xor_sync(ALL_LANES, l, 2);
  return make_float2(m, l);
}

// Keeps the scores of a query row. `to` is the lane's first position in the row's plane.
GK_DEVICE void store_scores(float *to, const float (&s)[TILE / 8][4], int half) {
#pragma unroll
  for (int n = 0; n < TILE / 8; n++) {
    *reinterpret_cast<float2 *>(to + n * 8) = make_float2(s[n][half * 2], s[n][half * 2 + 1]);
  }
}

// Adds the sums of the lanes that hold the same positions, and stores them. `to` is the lane's first position.
GK_DEVICE void store_sums(float *to, float (&sums)[TILE / 8][2]) {
#pragma unroll
  for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
    for (int other = 4; other < 32; other *= 2) {
      sums[n][0] += __shfl_xor_sync(ALL_LANES, sums[n][0], other);
      sums[n][1] += __shfl_xor_sync(ALL_LANES, sums[n][1], other);
    }
    if (lane_id() < 4) *reinterpret_cast<float2 *>(to + n * 8) = make_float2(sums[n][0], sums[n][1]);
  }
}

// Without SUMS, writes the softmax statistics of tiles, and the scores of observations that keep them. With SUMS,
// recomputes scores and sums probabilities, for observations that keep no scores.
template <int K_STEPS, int WARPS, bool SUMS>
__global__ void __launch_bounds__(WARPS * 32) observe_tiles(gk_observe call) {
  GK_DYNAMIC_SHARED(shared);
  bf16 *keys = reinterpret_cast<bf16 *>(shared) + warp_id() * TILE * KEY_STRIDE<K_STEPS>;

  const int lane = lane_id(), kv_head = blockIdx.y, tile = blockIdx.x * WARPS + warp_id();
  const Observation observation = read_observation(call, blockIdx.z);
  const int tile_start = tile * TILE;
  const bool is_seen =
      tile < observation.n_tiles && tile_start + TILE > earliest_seen(call, observation.first_position);
  if (SUMS) {
    const int end = observation.spec.first_candidate + observation.spec.n_candidates;
    if (observation.keeps_scores || tile_start >= end || tile_start + TILE <= observation.spec.first_candidate) return;
  } else if (!is_seen) {
    return;
  }
  if (is_seen) load_keys<K_STEPS>(keys, call, observation, kv_head, tile_start);
  copy_async_commit();

  const int row = lane >> 2, column = (lane & 3) * 2;
  const int n_queries = is_seen ? observation.n_queries : 0;
  const float factor = exponent_factor(call);
  float sums[TILE / 8][2] = {};
  for (int first = 0; first < n_queries; first += 16) {
    uint32_t a[K_STEPS][4];
    load_queries(a, call, observation, kv_head, first, row, column);
    if (first == 0) {  // the queries are in flight too
      copy_async_wait<0>();
      __syncwarp();
    }
    float s[TILE / 8][4] = {};
    multiply_keys(s, a, keys);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const Query query(call, observation, first + row + half * 8);
      if (SUMS) {
        const float2 stats = query.exists ? stats_of(call, observation, kv_head, query.at)[observation.n_tiles]
                                          : make_float2(0, 0);
        add_probabilities(sums, s, half, query, stats, tile_start + column, factor);
        continue;
      }
      if (observation.keeps_scores && query.exists)
        store_scores(plane(call, observation, kv_head, 1 + query.at) + tile_start + column, s, half);
      const float2 stats = softmax_stats(s, half, query, tile_start + column, factor);
      if (query.exists && (lane & 3) == 0) stats_of(call, observation, kv_head, query.at)[tile] = stats;
    }
  }
  if (SUMS) store_sums(plane(call, observation, kv_head, 0) + tile_start + column, sums);
}

}  // namespace
