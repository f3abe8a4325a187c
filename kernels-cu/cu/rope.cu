// Rotary positions (arXiv 2104.09864), and the storing of keys and values in the pool. For the pair (a, b) of
// dimensions (i, i + head_dim / 2) and its angle t,
//   (a, b) → (a cos t - b sin t, b cos t + a sin t)
// All kernels here move each byte once and are bound by memory bandwidth.
#include "device.cuh"

namespace {

using namespace gk;

constexpr int THREADS = 256;

// Sine and cosine of x, correct to the last bit of f32 but for rare ties. sincosf needs a stack for arguments over
// 105615, which positions reach. In f64, a two-part reduction by pi / 2 and a short series suffice for every position.
GK_DEVICE void sine_cosine(float x, float *sine, float *cosine) {
  const double quarter = rint((double)x * 0.63661977236758134308);  // 2 / pi
  double r = fma(quarter, -1.57079632679489655800, (double)x);
  r = fma(quarter, -6.12323399573676603587e-17, r);  // pi / 2 less its nearest double
  const double r2 = r * r;
  double s = 1.0 / 6227020800;  // 1 / 13!: |r| <= pi / 4, so the next term is below 3e-14
  s = fma(s, r2, -1.0 / 39916800);
  s = fma(s, r2, 1.0 / 362880);
  s = fma(s, r2, -1.0 / 5040);
  s = fma(s, r2, 1.0 / 120);
  s = fma(s, r2, -1.0 / 6);
  s = fma(s * r2, r, r);
  double c = -1.0 / 87178291200;  // -1 / 14!
  c = fma(c, r2, 1.0 / 479001600);
  c = fma(c, r2, -1.0 / 3628800);
  c = fma(c, r2, 1.0 / 40320);
  c = fma(c, r2, -1.0 / 720);
  c = fma(c, r2, 1.0 / 24);
  c = fma(c, r2, -0.5);
  c = fma(c, r2, 1.0);
  const int turn = (int)((int64_t)quarter & 3);
  const float a = (float)(turn & 1 ? c : s), b = (float)(turn & 1 ? s : c);
  *sine = turn & 2 ? -a : a;
  *cosine = turn == 1 || turn == 2 ? -b : b;
}

// One thread an angle.
__global__ void __launch_bounds__(THREADS) angles_of_rows(gk_angles call) {
  const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
  const uint32_t row = at / call.half, i = at % call.half;
  if (row >= (uint32_t)call.n_rows) return;
  // The product is rounded to f32: models are trained with its rounding.
  const float angle = (float)call.positions[row] * call.inv_freq[i];
  float sine, cosine;
  sine_cosine(angle, &sine, &cosine);
  float *out = call.angles + (int64_t)row * 2 * call.half;
  out[i] = cosine * call.scale;
  out[call.half + i] = sine * call.scale;
}

GK_DEVICE void load_4(float (&v)[4], const float *p) {
  const float4 four = *reinterpret_cast<const float4 *>(p);
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}

GK_DEVICE void store_4(bf16 *p, const float (&v)[4]) {
  uint2 packed;
  packed.x = pack_bf16(v[0], v[1]);
  packed.y = pack_bf16(v[2], v[3]);
  *reinterpret_cast<uint2 *>(p) = packed;
}

// A head of a row takes `lanes` neighbouring threads (a power of two), each with four pairs.
__global__ void __launch_bounds__(THREADS) rope_and_store(gk_rope_store call, int lanes) {
  const int head_dim = call.kv.head_dim, half = head_dim / 2, n_kv_heads = call.kv.n_kv_heads;
  const int first_key = call.n_heads, first_value = first_key + n_kv_heads, n_parts = first_value + n_kv_heads;
  const uint32_t item = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  const int row = item / n_parts, part = item % n_parts;
  const int lane = threadIdx.x & (lanes - 1), i = lane * 4;
  const bool is_query = part < first_key, is_value = part >= first_value;
  const int slot = is_query || row >= call.n_rows ? 0 : call.slots[row];
  // Idle threads do not return: the shuffles of the sum below need every lane.
  const bool active = row < call.n_rows && i < half && slot >= 0;

  float a[4] = {}, b[4] = {};
  if (active) {
    const float *from = call.qkv + row * call.qkv_stride + part * head_dim + i;
    load_4(a, from);
    load_4(b, from + half);
  }
  if (call.q_norm || call.k_norm) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) sum += a[j] * a[j];
#pragma unroll
    for (int j = 0; j < 4; j++) sum += b[j] * b[j];
    for (int other = lanes / 2; other; other >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, other);
    const float *weight = is_query ? call.q_norm : is_value ? nullptr : call.k_norm;
    if (active && weight) {
      const float factor = 1.0f / sqrtf(sum / (float)head_dim + call.eps);
      float first[4], second[4];
      load_4(first, weight + i);
      load_4(second, weight + half + i);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        a[j] = a[j] * factor * first[j];
        b[j] = b[j] * factor * second[j];
      }
    }
  }
  if (active && !is_value) {
    const float *angles = call.angles + (int64_t)row * head_dim + i;
    float cosine[4], sine[4];
    load_4(cosine, angles);
    load_4(sine, angles + half);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float x = a[j], y = b[j];
      a[j] = x * cosine[j] - y * sine[j];
      b[j] = y * cosine[j] + x * sine[j];
    }
  }
  if (active) {
    bf16 *to;
    if (is_query) {
      to = as_bf16(call.q) + row * call.q_stride + part * head_dim;
    } else {
      const int kv_head = part - (is_value ? first_value : first_key), size = call.kv.block_size;
      to = key_address(call.kv, call.kv.layer, kv_head, slot / size, slot % size) + (is_value ? call.kv.values_at : 0);
    }
    store_4(to + i, a);
    store_4(to + half + i, b);
  }
  if (row < call.n_rows && part == first_key - 1) {  // operand rows are zero up to their stride
    const float zero[4] = {};
    for (int col = first_key * head_dim + i; col < call.q_stride; col += lanes * 4) {
      store_4(as_bf16(call.q) + row * call.q_stride + col, zero);
    }
  }
}

// For every pair, a thread copies the same 16 bytes of a block of an arena. A thread thus reads only its own earlier
// writes, and pairs take effect in order without a barrier.
__global__ void __launch_bounds__(THREADS) copy_whole_blocks(gk_copy_blocks call, int per_run) {
  const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
  const uint32_t run = at / per_run;  // keys or values of a layer and head
  const int n_kv_heads = call.kv.n_kv_heads, layer = run / 2 / n_kv_heads, kv_head = run / 2 % n_kv_heads;
  if (layer >= call.kv.n_layers) return;
  const int64_t offset = (int64_t)(at % per_run) * 8 + (run & 1 ? call.kv.values_at : 0);
  for (int i = 0; i < call.n_pairs; i++) {
    const bf16 *from = key_address(call.kv, layer, kv_head, call.pairs[2 * i], 0) + offset;
    bf16 *to = key_address(call.kv, layer, kv_head, call.pairs[2 * i + 1], 0) + offset;
    *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
  }
}

}  // namespace

GK_LAUNCHER(angles)(const gk_angles *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->n_rows > 0 && call->half > 0 && (int64_t)call->n_rows * call->half < INT32_MAX);
  const int blocks = ceil_div(call->n_rows * call->half, THREADS);
  return GK_LAUNCH(angles_of_rows, dim3(blocks), dim3(THREADS), 0, stream, *call);
}

GK_LAUNCHER(rope_store)(const gk_rope_store *call, gk_stream stream) {
  if (call->n_rows == 0) return 0;
  const gk_kv &kv = call->kv;
  const int64_t n_parts = call->n_heads + 2 * (int64_t)kv.n_kv_heads;
  GK_REQUIRE(call->n_rows > 0 && call->n_heads > 0 && is_pool(kv) && kv.layer >= 0 && kv.layer < kv.n_layers);
  GK_REQUIRE(call->n_rows * n_parts < INT32_MAX);
  GK_REQUIRE(call->qkv_stride >= n_parts * kv.head_dim && call->qkv_stride % 4 == 0 && is_aligned(call->qkv, 16));
  GK_REQUIRE(call->q_stride >= (int64_t)call->n_heads * kv.head_dim && call->q_stride % GK_K_STEP == 0);
  GK_REQUIRE(is_aligned(call->q, 16) && is_aligned(call->angles, 16));
  GK_REQUIRE(is_aligned(call->q_norm, 16) && is_aligned(call->k_norm, 16));
  int lanes = 1;
  while (lanes * 8 < kv.head_dim) lanes *= 2;
  const int blocks = (int)ceil_div(call->n_rows * n_parts, (int64_t)(THREADS / lanes));
  return GK_LAUNCH(rope_and_store, dim3(blocks), dim3(THREADS), 0, stream, *call, lanes);
}

GK_LAUNCHER(copy_blocks)(const gk_copy_blocks *call, gk_stream stream) {
  if (call->n_pairs == 0) return 0;
  const gk_kv &kv = call->kv;
  GK_REQUIRE(call->n_pairs > 0 && is_pool(kv));
  const int per_run = kv.block_size * kv.head_dim / 8;
  const int64_t n_threads = (int64_t)kv.n_layers * kv.n_kv_heads * 2 * per_run;
  GK_REQUIRE(n_threads < INT32_MAX);
  const int blocks = (int)ceil_div(n_threads, (int64_t)THREADS);
  return GK_LAUNCH(copy_whole_blocks, dim3(blocks), dim3(THREADS), 0, stream, *call, per_run);
}
