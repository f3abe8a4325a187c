// Calls every launcher of the table over small shapes that touch all its paths, for the sanitizers to watch. Results are
// checked for being numbers; that they are right is what other tests are for. A new kernel gets a case here.
#include "galley_kernels.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

const gk_kernels *const kernels = galley_emulated_kernels();

// Memory of exactly this many values, so that reading past it is noticed.
template <class T>
struct Values {
  T *at;
  size_t n;
  explicit Values(size_t n_) : at(static_cast<T *>(calloc(n_, sizeof(T)))), n(n_) {}
  ~Values() { free(at); }
  Values(const Values &) = delete;
};

float number(size_t i) { return (float)(i * 7919 % 2001) / 1000.0f - 1.0f; }
gk_bf16 rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (gk_bf16)(bits >> 16);
}
void fill(const Values<float> &values) {
  for (size_t i = 0; i < values.n; i++) values.at[i] = number(i);
}
// Rows of `n_cols` numbers, zero up to the stride.
void fill(const Values<gk_bf16> &values, size_t n_cols, size_t stride) {
  for (size_t i = 0; i < values.n; i++) values.at[i] = i % stride < n_cols ? rounded(number(i)) : 0;
}

void accept(const char *what, int32_t error) {
  if (error == 0) return;
  fprintf(stderr, "%s: %s\n", what, kernels->error_name(error));
  exit(1);
}
void accept(const char *what, const Values<float> &values) {
  for (size_t i = 0; i < values.n; i++) {
    if (std::isfinite(values.at[i])) continue;
    fprintf(stderr, "%s: value %zu is no number\n", what, i);
    exit(1);
  }
}
void accept(const char *what, const Values<gk_bf16> &values) {
  for (size_t i = 0; i < values.n; i++) {
    if ((values.at[i] & 0x7f80) != 0x7f80) continue;
    fprintf(stderr, "%s: value %zu is no number\n", what, i);
    exit(1);
  }
}

int64_t padded(int64_t n) { return (n + 63) / 64 * 64; }

// ---- rows

void embed() {
  const int n_cols = 100, stride = 128, n_rows = 5;
  Values<gk_bf16> table(7 * stride);
  fill(table, n_cols, stride);
  Values<uint32_t> tokens(n_rows);
  for (int i = 0; i < n_rows; i++) tokens.at[i] = 6 - i;
  Values<float> out(n_rows * n_cols);
  gk_embed call = {};
  call.table = table.at, call.tokens = tokens.at, call.out = out.at;
  call.table_stride = stride, call.out_stride = n_cols;
  call.n_rows = n_rows, call.n_cols = n_cols, call.n_tokens = 7;
  accept("embed", kernels->embed(&call, nullptr));
  accept("embed", out);
}

void rms_norm() {
  const int n_cols = 100, stride = 128, n_rows = 3;
  Values<float> x(5 * n_cols), weight(n_cols);
  fill(x), fill(weight);
  Values<uint32_t> rows(n_rows);
  rows.at[0] = 4, rows.at[2] = 1;
  Values<gk_bf16> out(n_rows * stride);
  gk_rms_norm call = {};
  call.x = x.at, call.weight = weight.at, call.rows = rows.at, call.out = out.at;
  call.x_stride = n_cols, call.out_stride = stride;
  call.n_rows = n_rows, call.n_cols = n_cols, call.eps = 1e-5f;
  accept("rms_norm", kernels->rms_norm(&call, nullptr));
  accept("rms_norm", out);
}

// ---- keys and values

// A pool of its own, and one sequence in it whose block table runs backwards.
struct Cache {
  gk_kv kv = {};
  Values<gk_bf16> memory;
  Values<uint32_t> table, tokens, positions, selected;
  Values<int32_t> slots;
  Values<gk_seq> seqs;
  gk_batch batch = {};
  int n_heads, q_cols;

  Cache(int head_dim, int n_kv_heads, int group, int n_blocks, int first_position, int n_rows)
      : memory((size_t)2 * n_kv_heads * 2 * n_blocks * 16 * head_dim),
        table(n_blocks),
        tokens(n_rows),
        positions(n_rows),
        selected(2),
        slots(n_rows),
        seqs(1),
        n_heads(n_kv_heads * group),
        q_cols((int)padded(n_heads * head_dim)) {
    fill(memory, 1, 1);
    kv.base = memory.at;
    kv.block_stride = 16 * head_dim, kv.values_at = n_blocks * kv.block_stride, kv.arena_stride = 2 * kv.values_at;
    kv.arena_blocks = n_blocks, kv.n_layers = 2, kv.n_kv_heads = n_kv_heads;
    kv.head_dim = head_dim, kv.block_size = 16, kv.layer = 1;
    for (int i = 0; i < n_blocks; i++) table.at[i] = n_blocks - 1 - i;
    for (int i = 0; i < n_rows; i++) {
      const int position = first_position + i;
      positions.at[i] = position;
      slots.at[i] = (int32_t)table.at[position / 16] * 16 + position % 16;
    }
    seqs.at[0].n_rows = n_rows;
    seqs.at[0].first_position = first_position;
    batch.tokens = tokens.at, batch.positions = positions.at, batch.slots = slots.at, batch.seqs = seqs.at;
    batch.block_tables = table.at, batch.selected = selected.at;
    batch.n_rows = n_rows, batch.n_seqs = 1;
  }
};

void rope_store() {
  const int n_rows = 3, half = 32;
  Cache cache(2 * half, 2, 2, 3, 14, n_rows);
  Values<float> inv_freq(half), angles(n_rows * 2 * half), qkv(n_rows * 8 * 2 * half), norm(2 * half);
  fill(inv_freq), fill(qkv), fill(norm);
  gk_angles turn = {};
  turn.positions = cache.positions.at, turn.inv_freq = inv_freq.at, turn.angles = angles.at;
  turn.n_rows = n_rows, turn.half = half, turn.scale = 1;
  accept("angles", kernels->angles(&turn, nullptr));
  accept("angles", angles);
  Values<gk_bf16> q(n_rows * cache.q_cols);
  for (const float *weight : {(const float *)nullptr, (const float *)norm.at}) {
    gk_rope_store call = {};
    call.qkv = qkv.at, call.angles = angles.at, call.q_norm = weight, call.k_norm = weight;
    call.slots = cache.slots.at, call.q = q.at, call.kv = cache.kv;
    call.qkv_stride = 8 * 2 * half, call.q_stride = cache.q_cols;
    call.n_rows = n_rows, call.n_heads = cache.n_heads, call.eps = 1e-5f;
    accept("rope_store", kernels->rope_store(&call, nullptr));
    accept("rope_store", q);
  }
  Values<uint32_t> pairs(2);
  pairs.at[0] = 0, pairs.at[1] = 2;
  gk_copy_blocks copy = {};
  copy.pairs = pairs.at, copy.kv = cache.kv, copy.n_pairs = 1;
  accept("copy_blocks", kernels->copy_blocks(&copy, nullptr));
  accept("copy_blocks", cache.memory);
}

// ---- products

void linear() {
  const int n_in = 200, n_out = 72, n_rows = 19;
  const int64_t x_stride = padded(n_in);
  for (int epilogue : {GK_STORE, GK_ADD, GK_SILU_MUL}) {
    const int64_t out_stride = epilogue == GK_SILU_MUL ? padded(n_out) : n_out;
    Values<gk_bf16> w(padded(epilogue == GK_SILU_MUL ? 2 * n_out : n_out) * x_stride), x(n_rows * x_stride);
    fill(w, n_in, x_stride), fill(x, n_in, x_stride);
    Values<float> bias(n_out), out(n_rows * n_out);
    Values<gk_bf16> operand_out(n_rows * padded(n_out));
    gk_linear call = {};
    call.w = w.at, call.x = x.at, call.out = out.at, call.operand_out = operand_out.at;
    call.bias = epilogue == GK_STORE ? bias.at : nullptr;
    call.x_stride = x_stride, call.out_stride = out_stride;
    call.n_in = n_in, call.n_out = n_out, call.epilogue = epilogue;
    for (int n : {1, n_rows}) {
      call.n_rows = n;
      accept("linear", kernels->linear(&call, nullptr));
    }
    accept("linear", out);
    accept("linear", operand_out);
  }
}

// ---- attention

// All rows in one unit, or a unit a partition and a merge; behind a view of two selected blocks or without one.
void attend(int head_dim, int first_position, bool split, bool view) {
  const int n_rows = 3, group = 3, n_queries = n_rows * group;
  Cache cache(head_dim, 2, group, (first_position + n_rows + 15) / 16, first_position, n_rows);
  gk_seq &seq = cache.seqs.at[0];
  int n_partitions = (first_position + n_rows - 1) / GK_PARTITION + 1;
  if (view) {
    seq.tail_start = first_position - 20;
    seq.selected_kind = GK_SELECTED_BLOCKS, seq.n_selected = 2;
    cache.selected.at[1] = 1;
    n_partitions = 1 + (first_position + n_rows - 1) / GK_PARTITION - seq.tail_start / GK_PARTITION + 1;
  }
  Values<gk_bf16> q(n_rows * cache.q_cols), out(n_rows * cache.q_cols);
  fill(q, cache.n_heads * head_dim, cache.q_cols);
  Values<gk_unit> units(split ? n_partitions : 1);
  for (size_t i = 0; i < units.n; i++) {
    units.at[i].n_queries = n_queries;
    units.at[i].partition = (int32_t)i;
    units.at[i].n_partitions = split ? 1 : n_partitions;
    units.at[i].state = split ? (int32_t)i : -1;
  }
  Values<gk_merge> merges(1);
  merges.at[0].n_queries = n_queries, merges.at[0].n_states = n_partitions;
  Values<float> states((size_t)n_partitions * 2 * 16 * (head_dim + 2));
  gk_attention call = {};
  call.q = q.at, call.out = out.at, call.units = units.at, call.merges = merges.at, call.states = states.at;
  call.batch = cache.batch, call.kv = cache.kv;
  call.q_stride = call.out_stride = cache.q_cols;
  call.n_heads = cache.n_heads, call.n_units = (int32_t)units.n, call.n_merges = split ? 1 : 0;
  call.queries_per_unit = 16, call.scale = 0.125f;
  accept("attention", kernels->attention(&call, nullptr));
  accept("attention", out);
}
void attention() {
  attend(64, 40, false, false);
  attend(64, 500, true, false);  // over the border of a partition
  attend(64, 100, false, true);
  attend(128, 40, true, true);
  attend(96, 30, false, false);
  attend(256, 20, false, false);
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
    accept("observe", kernels->observe(&call, nullptr));
    for (int i = 1; i < one.n_selected; i++) {
      if (out.at[i - 1] < out.at[i] && out.at[i] < 48) continue;
      fprintf(stderr, "observe: ids that do not ascend\n");
      exit(1);
    }
  }
}

void sample() {
  const int n_vocab = 3000, n_rows = 4, n_top = 3;
  Values<float> logits((size_t)n_rows * n_vocab), edited(n_vocab);
  fill(logits);
  Values<gk_sample_row> rows(n_rows);
  Values<gk_edit> edits(2);
  edits.at[0].token = 5, edits.at[0].flags = GK_SEEN, edits.at[0].n_in_output = 2;
  edits.at[1].token = 6, edits.at[1].flags = GK_BANNED;
  for (int i = 0; i < n_rows; i++) {
    gk_sample_row &row = rows.at[i];
    row.seed = 42 + i, row.logits_row = i, row.position = 10, row.temperature = i ? 0.8f : 0.0f;
    row.top_k = i == 2 ? 40 : 0, row.top_p = i == 3 ? 0.9f : 1.0f, row.min_p = i == 3 ? 0.01f : 0.0f;
    row.repetition_penalty = 1.1f, row.edited = i == 2 ? 0 : -1, row.n_edits = i == 2 ? 2 : 0;
    row.n_top = i == 1 ? n_top : -1;
  }
  Values<gk_pick> picks(n_rows), top(n_top);
  gk_sample call = {};
  call.logits = logits.at, call.rows = rows.at, call.edits = edits.at, call.edited = edited.at;
  call.picks = picks.at, call.top = top.at;
  call.logits_stride = n_vocab, call.n_rows = n_rows, call.n_vocab = n_vocab;
  accept("sample", kernels->sample(&call, nullptr));
  for (int i = 0; i < n_rows; i++) {
    if (picks.at[i].token < (uint32_t)n_vocab) continue;
    fprintf(stderr, "sample: token %u of %d\n", picks.at[i].token, n_vocab);
    exit(1);
  }
}

}  // namespace

// Runs the cases that are named.
int main(int n_words, char **words) {
  const struct {
    const char *name;
    void (*run)();
  } cases[] = {{"embed", embed},   {"rms_norm", rms_norm},   {"rope_store", rope_store}, {"linear", linear},
               {"sample", sample}, {"attention", attention}, {"observe", observe}};
  int n_run = 0;
  for (int i = 1; i < n_words; i++) {
    for (const auto &one : cases) {
      if (strcmp(words[i], one.name)) continue;
      one.run();
      n_run++;
    }
  }
  if (n_run == n_words - 1 && n_run > 0) return 0;
  fprintf(stderr, "name cases, of those in main of launchers.cpp\n");
  return 2;
}
