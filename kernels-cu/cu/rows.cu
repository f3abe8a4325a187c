// Operations on single rows: embedding lookup, and RMS norm (arXiv 1910.07467):
//   y = x / sqrt(mean(x²) + eps) · weight
// Both move each byte once and are bound by memory bandwidth. A thread takes runs of four columns, so that a warp reads
// 512 consecutive bytes of an f32 row. The number of columns alone decides the order of a sum.
#include "device.cuh"

namespace {

using namespace gk;

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Loads four columns of an f32 row; columns past its end are zero. WHOLE: rows begin and end at multiples of 16 bytes.
// WHOLE is a template parameter because a branch would make every load wait for the one before it.
template <bool WHOLE>
GK_DEVICE float4 load_4(const float *row, int col, int n_cols) {
  float4 v = make_float4(0, 0, 0, 0);
  if (WHOLE) {
    if (col < n_cols) v = *reinterpret_cast<const float4 *>(row + col);
    return v;
  }
  if (col + 0 < n_cols) v.x = row[col + 0];
  if (col + 1 < n_cols) v.y = row[col + 1];
  if (col + 2 < n_cols) v.z = row[col + 2];
  if (col + 3 < n_cols) v.w = row[col + 3];
  return v;
}

// One block a row.
__global__ void __launch_bounds__(THREADS) embed_rows(gk_embed call, bool whole) {
  uint32_t token = call.tokens[blockIdx.x];
  if (token & GK_PLACEHOLDER_BIT) {
    const uint32_t sampled = token & ~GK_PLACEHOLDER_BIT;
    if (sampled < (uint32_t)call.n_sampled) token = call.sampled[sampled].token;
  }
  float *out = call.out + (int64_t)blockIdx.x * call.out_stride;
  const bf16 *row = as_bf16(call.table) + (int64_t)token * call.table_stride;
  for (int col = threadIdx.x * 4; col < call.n_cols; col += THREADS * 4) {
    float v[4];
    if (token < (uint32_t)call.n_tokens) {
      // Rows of the table are padded: four columns can always be read.
      const uint2 two = *reinterpret_cast<const uint2 *>(row + col);
      v[0] = low_f32(two.x), v[1] = high_f32(two.x), v[2] = low_f32(two.y), v[3] = high_f32(two.y);
    } else {
      // The host checks tokens. A token that is still out of range gives NaN, and reads nothing beyond the table.
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

// Runs that a thread loads at once: 4096 columns a row. A row then costs one wait for memory, and one for the cache of
// its SM, which holds the row for the second reading.
constexpr int AHEAD = 4;

// One block a row.
template <bool WHOLE>
__global__ void __launch_bounds__(THREADS) rms_norm_rows(gk_rms_norm call) {
  __shared__ float partial[WARPS];
  const int64_t row = call.rows ? call.rows[blockIdx.x] : blockIdx.x;
  const float *x = call.x + row * call.x_stride;
  float sum = 0;
#pragma unroll 1
  for (int first = threadIdx.x * 4; first < call.n_cols; first += AHEAD * THREADS * 4) {
    float4 v[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) v[i] = load_4<WHOLE>(x, first + i * THREADS * 4, call.n_cols);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {  // past the last column the sum adds 0 · 0, which changes nothing
      sum += v[i].x * v[i].x;
      sum += v[i].y * v[i].y;
      sum += v[i].z * v[i].z;
      sum += v[i].w * v[i].w;
    }
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
#pragma unroll 1
  for (int first = threadIdx.x * 4; first < call.out_stride; first += AHEAD * THREADS * 4) {
    float4 v[AHEAD], w[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      w[i] = load_4<WHOLE>(call.weight, first + i * THREADS * 4, call.n_cols);
      v[i] = load_4<WHOLE>(x, first + i * THREADS * 4, call.n_cols);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int col = first + i * THREADS * 4;
      if (col >= call.out_stride) break;
      uint2 packed;  // zero past the last column, since both factors are zero
      packed.x = pack_bf16(v[i].x * factor * w[i].x, v[i].y * factor * w[i].y);
      packed.y = pack_bf16(v[i].z * factor * w[i].z, v[i].w * factor * w[i].w);
      *reinterpret_cast<uint2 *>(out + col) = packed;
    }
  }
}

}  // namespace

GK_LAUNCHER(embed)(const gk_embed *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->n_rows > 0 && call->n_cols > 0 && call->n_tokens > 0);
  GK_REQUIRE(call->n_sampled >= 0 && (call->sampled || call->n_sampled == 0));
  GK_REQUIRE(call->table_stride >= call->n_cols && call->table_stride % GK_K_STEP == 0);
  GK_REQUIRE(call->out_stride >= call->n_cols && is_aligned(call->table, 16));
  const bool whole = call->out_stride % 4 == 0 && is_aligned(call->out, 16);
  return GK_LAUNCH(embed_rows, dim3(call->n_rows), dim3(THREADS), 0, stream, *call, whole);
}

GK_LAUNCHER(rms_norm)(const gk_rms_norm *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->n_rows > 0 && call->n_cols > 0 && call->x_stride >= call->n_cols);
  GK_REQUIRE(call->out_stride >= call->n_cols && call->out_stride % GK_K_STEP == 0 && is_aligned(call->out, 16));
  const bool whole = call->n_cols % 4 == 0 && call->x_stride % 4 == 0 && is_aligned(call->x, 16) &&
                     is_aligned(call->weight, 16);
  auto kernel = whole ? rms_norm_rows<true> : rms_norm_rows<false>;
  return GK_LAUNCH(kernel, dim3(call->n_rows), dim3(THREADS), 0, stream, *call);
}
