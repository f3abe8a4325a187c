// Cases of launchers.cpp: rows, keys and values, and matrix products.
#include "cases.h"

void embed() {
  const int n_cols = 100, stride = 128, n_rows = 5;
  Values<gk_bf16> table(7 * stride);
  fill(table, n_cols, stride);
  Values<uint32_t> tokens(n_rows);
  for (int i = 0; i < n_rows; i++) tokens.at[i] = 6 - i;
  // The last token is a placeholder for the last sampled token.
  tokens.at[n_rows - 1] = GK_PLACEHOLDER_BIT | 1;
  Values<gk_sampled> sampled(2);
  sampled.at[1].token = 3;
  Values<float> out(n_rows * n_cols);
  gk_embed call = {};
  call.table = table.at, call.tokens = tokens.at, call.out = out.at;
  call.sampled = sampled.at, call.n_sampled = 2;
  call.table_stride = stride, call.out_stride = n_cols;
  call.n_rows = n_rows, call.n_cols = n_cols, call.n_tokens = 7;
  RUN(embed, call);
  accept("embed: no number", out);
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
  RUN(rms_norm, call);
  accept("rms_norm: no number", out);
}

void angles() {
  const int n_rows = 3, half = 20;
  Values<uint32_t> positions(n_rows);
  positions.at[1] = 7, positions.at[2] = 100000;
  Values<float> inv_freq(half), out(n_rows * 2 * half);
  fill(inv_freq);
  gk_angles call = {};
  call.positions = positions.at, call.inv_freq = inv_freq.at, call.angles = out.at;
  call.n_rows = n_rows, call.half = half, call.scale = 1;
  RUN(angles, call);
  accept("angles: no number", out);
}

void rope_store() {
  const int n_rows = 3, half = 32;
  Cache cache(2 * half, 2, 2, 3, 14, n_rows);
  Values<float> turns(n_rows * 2 * half), qkv(n_rows * 8 * 2 * half), norm(2 * half);
  fill(turns), fill(qkv), fill(norm);
  Values<gk_bf16> q(n_rows * cache.q_cols);
  for (const float *weight : {(const float *)nullptr, (const float *)norm.at}) {
    gk_rope_store call = {};
    call.qkv = qkv.at, call.angles = turns.at, call.q_norm = weight, call.k_norm = weight;
    call.slots = cache.slots.at, call.q = q.at, call.kv = cache.kv;
    call.qkv_stride = 8 * 2 * half, call.q_stride = cache.q_cols;
    call.n_rows = n_rows, call.n_heads = cache.n_heads, call.eps = 1e-5f;
    RUN(rope_store, call);
    accept("rope_store: no number", q);
    accept("rope_store: no number", cache.memory);
  }
}

void copy_blocks() {
  Cache cache(64, 2, 2, 3, 14, 3);
  Values<uint32_t> pairs(4);  // the second pair copies the result of the first
  pairs.at[1] = 2, pairs.at[2] = 2, pairs.at[3] = 1;
  gk_copy_blocks call = {};
  call.pairs = pairs.at, call.kv = cache.kv, call.n_pairs = 2;
  RUN(copy_blocks, call);
  accept("copy_blocks: no number", cache.memory);
}

// Every variant and epilogue. The ring of stages wraps around, and the last step is partial.
void linear() {
  const int n_in = 850, n_out = 72, n_rows = 19;
  const int64_t x_stride = padded(n_in);
  for (int epilogue : {GK_STORE, GK_ADD, GK_SILU_MUL}) {
    const bool gated = epilogue == GK_SILU_MUL;
    Values<gk_bf16> w(padded(gated ? 2 * n_out : n_out) * x_stride), x(n_rows * x_stride);
    fill(w, n_in, x_stride), fill(x, n_in, x_stride);
    Values<float> bias(n_out), out(gated ? 0 : n_rows * n_out);
    Values<gk_bf16> operand_out(gated ? n_rows * padded(n_out) : 0);
    gk_linear call = {};
    call.w = w.at, call.x = x.at, call.out = out.at, call.operand_out = operand_out.at;
    call.bias = epilogue == GK_STORE ? bias.at : nullptr;
    call.x_stride = x_stride, call.out_stride = gated ? padded(n_out) : n_out;
    call.n_rows = n_rows, call.n_in = n_in, call.n_out = n_out, call.epilogue = epilogue;
    for (call.variant = 0; call.variant <= GK_LINEAR_VARIANTS; call.variant++) {
      RUN(linear, call);
      accept("linear: no number", out);
      accept("linear: no number", operand_out);
    }
  }
}
