// What happens to single rows: looking up embeddings, and RMS norm (arXiv 1910.07467):
//   y = x / sqrt(mean(x²) + eps) · weight
// Both move each byte once and are as fast as memory. A thread takes runs of four columns, so that a warp reads 512
// bytes in a row of f32; a sum has one order, which the number of columns decides alone.
#include "device.cuh"

namespace {

using namespace gk;

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Four columns of a row of f32, those past its end as zero. `whole` says that rows begin at multiples of 16 bytes.
GK_DEVICE float4 load_4(const float *row, int col, int n_cols, bool whole) {
  if (whole && col + 4 <= n_cols) return *reinterpret_cast<const float4 *>(row + col);
  float4 v = make_float4(0, 0, 0, 0);
  if (col + 0 < n_cols) v.x = row[col + 0];
  if (col + 1 < n_cols) v.y = row[col + 1];
  if (col + 2 < n_cols) v.z = row[col + 2];
  if (col + 3 < n_cols) v.w = row[col + 3];
  return v;
}

// One block a row.
__global__ void __launch_bounds__(THREADS) embed_rows(gk_embed call, bool whole) {
  uint32_t token = call.tokens[blockIdx.x];
  if (token & GK_TOKEN_OF_PICK) {
    const uint32_t pick = token & ~GK_TOKEN_OF_PICK;
    if (pick < (uint32_t)call.n_picks) token = call.picks[pick].token;
  }
  float *out = call.out + (int64_t)blockIdx.x * call.out_stride;
  const bf16 *row = as_bf16(call.table) + (int64_t)token * call.table_stride;
  for (int col = threadIdx.x * 4; col < call.n_cols; col += THREADS * 4) {
    float v[4];
    if (token < (uint32_t)call.n_tokens) {
      // Rows of the table are padded: four columns are always there.
      const uint2 two = *reinterpret_cast<const uint2 *>(row + col);
      v[0] = low_f32(two.x), v[1] = high_f32(two.x), v[2] = low_f32(two.y), v[3] = high_f32(two.y);
    } else {
      // The host checks tokens; one that got past it must be seen, and must not read what lies beyond the table.
      v[0] = v[1] = v[2] = v[3] = NAN;
    }
    if (whole && col + 4 <= call.n_cols) {
      *reinterpret_cast<float4 *>(out + col) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (col + i < call.n_cols) out[col + i] = v[i];
      }
    }
  }
}

// One block a row. The second reading finds the row in the cache of its SM.
__global__ void __launch_bounds__(THREADS) rms_norm_rows(gk_rms_norm call, bool whole) {
  __shared__ float partial[WARPS];
  const int64_t row = call.rows ? call.rows[blockIdx.x] : blockIdx.x;
  const float *x = call.x + row * call.x_stride;
  float sum = 0;
#pragma unroll 4
  for (int col = threadIdx.x * 4; col < call.n_cols; col += THREADS * 4) {
    const float4 v = load_4(x, col, call.n_cols, whole);
    sum += v.x * v.x;
    sum += v.y * v.y;
    sum += v.z * v.z;
    sum += v.w * v.w;
  }
#pragma unroll
  for (int other = 16; other; other >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, other);
  if (lane_id() == 0) partial[warp_id()] = sum;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++) total += partial[warp];
  const float factor = 1.0f / sqrtf(total / (float)call.n_cols + call.eps);

  bf16 *out = as_bf16(call.out) + (int64_t)blockIdx.x * call.out_stride;
#pragma unroll 4
  for (int col = threadIdx.x * 4; col < call.out_stride; col += THREADS * 4) {
    const float4 v = load_4(x, col, call.n_cols, whole);
    const float4 w = load_4(call.weight, col, call.n_cols, whole);
    uint2 packed;  // zero past the columns, since both factors are
    packed.x = pack_bf16(v.x * factor * w.x, v.y * factor * w.y);
    packed.y = pack_bf16(v.z * factor * w.z, v.w * factor * w.w);
    *reinterpret_cast<uint2 *>(out + col) = packed;
  }
}

}  // namespace

GK_LAUNCHER(embed)(const gk_embed *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->n_rows > 0 && call->n_cols > 0 && call->n_tokens > 0);
  GK_REQUIRE(call->n_picks >= 0 && (call->picks || call->n_picks == 0));
  GK_REQUIRE(call->table_stride >= call->n_cols && call->table_stride % GK_K_STEP == 0);
  GK_REQUIRE(call->out_stride >= call->n_cols && is_aligned(call->table, 16));
  const bool whole = call->out_stride % 4 == 0 && is_aligned(call->out, 16);
  return GK_LAUNCH(embed_rows, dim3(call->n_rows), dim3(THREADS), 0, stream, *call, whole);
}

GK_LAUNCHER(rms_norm)(const gk_rms_norm *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->n_rows > 0 && call->n_cols > 0 && call->x_stride >= call->n_cols);
  GK_REQUIRE(call->out_stride >= call->n_cols && call->out_stride % GK_K_STEP == 0 && is_aligned(call->out, 16));
  const bool whole = call->x_stride % 4 == 0 && is_aligned(call->x, 16) && is_aligned(call->weight, 16);
  return GK_LAUNCH(rms_norm_rows, dim3(call->n_rows), dim3(THREADS), 0, stream, *call, whole);
}
