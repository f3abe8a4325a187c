// States (m, l, o) of attention, their merge, and the addresses of outputs. Units and merges share this code, so that
// both give the same bits.
#pragma once

#include "attention_view.cuh"

namespace {

constexpr float NOTHING = -INFINITY;  // the maximum of no score

// 2^e for a whole e <= 0, exactly; 0 below the normal numbers, for -inf, and for the NaN of (-inf) - (-inf).
GK_DEVICE float power_of_two(float e) {
  if (!(e >= -126.0f)) return 0.0f;
  const uint32_t bits = (uint32_t)((int)e + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return power;
}

// Merges a partition's state into the total of earlier partitions. Units and merge_states both use it.
struct Merge {
  float m;
  float kept;
  float added;

  GK_DEVICE_MEMBER Merge(float total_m, float state_m)
      : m(fmaxf(total_m, state_m)), kept(power_of_two(total_m - m)), added(power_of_two(state_m - m)) {}
  // For a row that sees no token of the partition, the result is 0 · 0 + total · 1.
  GK_DEVICE_MEMBER float operator()(float total, float state) const { return fmaf(state, added, total * kept); }
};

// The state of one KV head: m and l of its rows, then o, row by row.
struct State {
  float *m;
  float *l;
  float *o;
};

GK_DEVICE State state_at(const gk_attention &call, int state, int kv_head) {
  const int64_t size = (int64_t)call.queries_per_unit * (call.kv.head_dim + 2);
  float *m = call.states + ((int64_t)state * call.kv.n_kv_heads + kv_head) * size;
  return {m, m + call.queries_per_unit, m + 2 * call.queries_per_unit};
}

// ---- Outputs

// Address of the output of a query row.
GK_DEVICE bf16 *output_of(const gk_attention &call, const View &view, int kv_head, int row) {
  const int token = (view.first_query + row) / view.group;
  const int head = kv_head * view.group + (view.first_query + row) - token * view.group;
  return as_bf16(call.out) + (view.first_row + token) * call.out_stride + head * call.kv.head_dim;
}

// Operand rows are zero up to a whole step. The thread that has the last head of a token clears the rest of its row.
GK_DEVICE void clear_padding(const gk_attention &call, const View &view, int kv_head, int row) {
  const int n_cols = call.n_heads * call.kv.head_dim;
  const int end = ceil_div(n_cols, GK_K_STEP) * GK_K_STEP;
  if (n_cols == end || kv_head != call.kv.n_kv_heads - 1) return;
  if ((view.first_query + row) % view.group != view.group - 1) return;
  bf16 *out = output_of(call, view, kv_head, row) + call.kv.head_dim;
  for (int i = 0; i < end - n_cols; i += 8) *reinterpret_cast<uint4 *>(out + i) = make_uint4(0, 0, 0, 0);
}

}  // namespace
