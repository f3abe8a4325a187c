// An observation with the facts of its sequence, and its working memory.
#pragma once

#include "device.cuh"

namespace {

using namespace gk;

constexpr int TILE = GK_OBSERVED_TILE;

// An observation, and the facts of its sequence.
struct Observation {
  gk_observation spec;
  const uint32_t *block_table;
  int first_row;  // its first observing row, in the batch
  int first_position;
  int n_tiles;
  int group;  // query heads of a KV head
  int n_queries;
  bool keeps_scores;
};

GK_DEVICE Observation read_observation(const gk_observe &call, int at) {
  Observation observation;
  observation.spec = call.observations[at];
  const gk_seq &seq = call.batch.seqs[observation.spec.seq];
  observation.block_table = call.batch.block_tables + seq.block_table;
  observation.first_row = seq.first_row + observation.spec.first_row;
  observation.first_position = seq.first_position + observation.spec.first_row;
  observation.n_tiles = (observation.first_position + observation.spec.n_rows - 1) / TILE + 1;
  observation.group = call.n_heads / call.kv.n_kv_heads;
  observation.n_queries = observation.spec.n_rows * observation.group;
  observation.keeps_scores = observation.n_queries <= GK_KEPT_QUERIES;
  return observation;
}

// Plane 0 holds the sums of a KV head. The other planes hold kept scores, one query row each. Plane 1 later holds the
// pooled values.
GK_DEVICE float *plane(const gk_observe &call, const Observation &observation, int kv_head, int at) {
  const int64_t n_planes = observation.keeps_scores ? observation.n_queries + 1 : 2;
  return call.scores + observation.spec.scores + (kv_head * n_planes + at) * observation.n_tiles * TILE;
}

// (m, l) of each tile of a query row, followed by (m, 1 / l) of the whole row.
GK_DEVICE float2 *stats_of(const gk_observe &call, const Observation &observation, int kv_head, int query) {
  float2 *all = reinterpret_cast<float2 *>(call.stats + observation.spec.stats);
  return all + ((int64_t)kv_head * observation.n_queries + query) * (observation.n_tiles + 1);
}

GK_DEVICE int earliest_seen(const gk_observe &call, int position) {
  return call.window > 0 ? max(0, position - call.window + 1) : 0;
}

// exp(scale · x) is exp2(exponent_factor · x).
GK_DEVICE float exponent_factor(const gk_observe &call) { return call.scale * 1.44269504f; }

}  // namespace
