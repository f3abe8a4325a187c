// Cases of launchers.cpp: attention and observation.
#include "cases.h"

namespace {

enum class See { All, Window, Blocks, Tokens };

// Decodes, verifications and parts of prompts, with three query heads a KV head. Units of 16, 32 or 64 query rows cover
// all partitions of their rows, or (split) one partition each, with merges.
void attend(int head_dim, int queries_per_unit, int first_position, int n_rows, bool split, See see = See::All) {
  const int group = 3, n_queries = n_rows * group, n_positions = first_position + n_rows, n_kv_heads = 2;
  const int n_ids = see == See::Blocks ? 2 : 5;
  Cache cache(head_dim, n_kv_heads, group, (n_positions + 15) / 16, first_position, n_rows, 2 * n_kv_heads * n_ids);
  gk_seq &seq = cache.seqs.at[0];
  int first_tail = 0, n_partitions = 0;
  if (see == See::Blocks || see == See::Tokens) {
    seq.tail_start = first_position - 20;
    seq.selected_kind = see == See::Blocks ? GK_SELECTED_BLOCKS : GK_SELECTED_TOKENS;
    seq.n_selected = n_ids, seq.selected_per_head = see == See::Tokens;
    for (size_t i = 0; i < cache.selected.n; i++) cache.selected.at[i] = (uint32_t)(i % n_ids);
    first_tail = seq.tail_start / GK_PARTITION, n_partitions = 1;
  }
  gk_attention call = {};
  call.window = see == See::Window ? 50 : 0;
  if (call.window) first_tail = (first_position + 1 - call.window) / GK_PARTITION;
  n_partitions += (n_positions - 1) / GK_PARTITION - first_tail + 1;
  const int n_runs = (n_queries + queries_per_unit - 1) / queries_per_unit;
  Values<gk_unit> units(split ? n_runs * n_partitions : n_runs);
  Values<gk_merge> merges(split ? n_runs : 0);
  for (int i = 0; i < (int)units.n; i++) {
    const int run = split ? i / n_partitions : i, first = run * queries_per_unit;
    gk_unit &unit = units.at[i];
    unit.first_query = first;
    unit.n_queries = n_queries - first < queries_per_unit ? n_queries - first : queries_per_unit;
    unit.partition = split ? i % n_partitions : 0;
    unit.n_partitions = split ? 1 : n_partitions;
    unit.state = split ? i : -1;
    if (split) merges.at[run] = {0, first, unit.n_queries, run * n_partitions, n_partitions};
  }
  Values<gk_bf16> q(n_rows * cache.q_cols), out(n_rows * cache.q_cols);
  fill(q, cache.n_heads * head_dim, cache.q_cols);
  Values<float> states(units.n * n_kv_heads * queries_per_unit * (head_dim + 2));
  call.q = q.at, call.out = out.at, call.units = units.at, call.merges = merges.at, call.states = states.at;
  call.batch = cache.batch, call.kv = cache.kv;
  call.q_stride = call.out_stride = cache.q_cols;
  call.n_heads = cache.n_heads, call.n_units = (int32_t)units.n, call.n_merges = (int32_t)merges.n;
  call.queries_per_unit = queries_per_unit, call.scale = 0.125f;
  RUN(attention, call);
  accept("attention: no number", out);
}

}  // namespace

void attention() {
  attend(32, 16, 40, 1, false);                // a decode with fewer tiles than stages
  attend(64, 16, 500, 15, false);              // several units across a partition border, merged
  attend(64, 16, 500, 15, true);               // the same rows, merged
  attend(64, 32, 300, 9, false, See::Window);  // rows that do not see the first tiles
  attend(128, 16, 100, 4, true, See::Blocks);  // a verification behind a view
  attend(96, 16, 100, 4, false, See::Tokens);
  attend(128, 64, 20, 20, false);  // a prompt
  attend(96, 32, 60, 9, false);
  attend(256, 32, 60, 9, true);
  attend(256, 16, 70, 2, false);
}

void observe() {
  const int n_rows = 4, head_dim = 64, first_position = 60, n_positions = first_position + n_rows;
  Cache cache(head_dim, 2, 2, 4, first_position, n_rows);
  Values<gk_bf16> q(n_rows * cache.q_cols);
  fill(q, cache.n_heads * head_dim, cache.q_cols);
  for (int granularity : {1, 16}) {
    Values<gk_observation> observations(1);
    gk_observation &one = observations.at[0];
    one.n_rows = n_rows, one.granularity = granularity;
    one.n_candidates = 48, one.n_selected = granularity == 1 ? 10 : 2;
    one.pool = granularity == 1 ? GK_POOL_MAX : GK_POOL_NONE, one.pool_width = 5;
    const size_t n_queries = 2 * n_rows, n_tiles = (n_positions - 1) / GK_OBSERVED_TILE + 1;
    static_assert(2 * n_rows <= GK_KEPT_QUERIES, "scores are kept");
    Values<float> scores(2 * (n_queries + 1) * n_tiles * GK_OBSERVED_TILE), stats(2 * n_queries * (n_tiles + 1) * 2);
    Values<uint32_t> out((size_t)2 * one.n_selected);
    gk_observe call = {};
    call.q = q.at, call.observations = call.host_observations = observations.at;
    call.scores = scores.at, call.stats = stats.at, call.out = out.at;
    call.batch = cache.batch, call.kv = cache.kv, call.q_stride = cache.q_cols;
    call.n_heads = cache.n_heads, call.n_observations = 1, call.max_positions = n_positions, call.scale = 0.125f;
    RUN(observe, call);
    digest(out);
    for (int i = 1; i < one.n_selected; i++) {
      expect(out.at[i - 1] < out.at[i] && out.at[i] < 48, "observe: ids that do not ascend");
    }
  }
}
