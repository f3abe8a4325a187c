// The merge of the states that several units have computed for the same rows.
#pragma once

#include "attention_load.cuh"
#include "attention_state.cuh"

namespace {

// One warp a row, four dimensions a lane.
__global__ void __launch_bounds__(THREADS) merge_states(const gk_attention call) {
  constexpr int AHEAD = 8;  // states loaded at once; it does not change the order of sums
  const gk_merge merge = call.merges[blockIdx.x];
  const int kv_head = blockIdx.y, row = blockIdx.z * WARPS + warp_id(), head_dim = call.kv.head_dim;
  if (row >= merge.n_queries) return;
  const View view = view_of(call, merge, kv_head);
  const State first = state_at(call, merge.state, kv_head);
  const int64_t stride = (int64_t)call.kv.n_kv_heads * call.queries_per_unit * (head_dim + 2);
  for (int column = lane_id() * 4; column < head_dim; column += 128) {
    float m = NOTHING, l = 0.0f;
    float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int i = 0; i < merge.n_states; i += AHEAD) {
      float state_m[AHEAD], state_l[AHEAD];
      float4 state_o[AHEAD];
#pragma unroll
      for (int j = 0; j < AHEAD; j++) {
        const int64_t at = min(i + j, merge.n_states - 1) * stride;
        state_m[j] = first.m[at + row];
        state_l[j] = first.l[at + row];
        state_o[j] = *reinterpret_cast<const float4 *>(first.o + at + row * head_dim + column);
      }
#pragma unroll
      for (int j = 0; j < AHEAD; j++) {
        if (i + j >= merge.n_states) break;
        const Merge merged(m, state_m[j]);
        m = merged.m;
        l = merged(l, state_l[j]);
        o = make_float4(merged(o.x, state_o[j].x), merged(o.y, state_o[j].y), merged(o.z, state_o[j].z),
                        merged(o.w, state_o[j].w));
      }
    }
    uint2 packed;
    packed.x = pack_bf16(o.x / l, o.y / l);
    packed.y = pack_bf16(o.z / l, o.w / l);
    *reinterpret_cast<uint2 *>(output_of(call, view, kv_head, row) + column) = packed;
  }
  if (lane_id() == 0) clear_padding(call, view, kv_head, row);
}

}  // namespace
