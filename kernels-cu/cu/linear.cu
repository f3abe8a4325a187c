// Matrix products: out[row][n] = Σ_k x[row][k] · W[n][k], of bf16 operands. docs/kernels.md explains the variants.
//
// Every sum is one chain of m16n8k16 products over k, from k = 0 up, starting from zero, on a tensor core. The chain is
// never split and never reassociated. Rows of W are the 16 rows of such a product, rows of x its 8 columns. So the bits
// of an output depend on its row of x and its row of W alone, and all variants (LINEAR_TILES) give the same bits.
//
// A block of threads copies steps of W and x through a ring in shared memory (cp.async) and multiplies them from there
// (ldmatrix, mma). It stores its sums in shared memory and writes them to global memory, 16 bytes a thread at a time.
#include "device.cuh"
#include "tuning.h"

namespace {
using namespace gk;

static_assert(sizeof(LINEAR_TILES) / sizeof(linear_tile) == GK_LINEAR_VARIANTS, "the header counts the variants");

template <int VARIANT>
struct Tile {
  static constexpr linear_tile TILE = LINEAR_TILES[VARIANT];
  static constexpr int W_ROWS = TILE.w_rows, X_ROWS = TILE.x_rows, K = TILE.k, STAGES = TILE.stages;
  static constexpr int WARPS_X = TILE.warps_x, THREADS = TILE.warps_w * TILE.warps_x * 32, BLOCKS = TILE.blocks_per_sm;
  static constexpr int WARP_W = W_ROWS / TILE.warps_w, WARP_X = X_ROWS / TILE.warps_x;  // the part of a warp
  static constexpr int TILES_W = WARP_W / 16, TILES_X = WARP_X / 8, LOADS_X = WARP_X <= 8 ? 1 : WARP_X / 16;
  static constexpr int CHUNKS = K / 8;                // chunks of 16 bytes in a row of a step
  static constexpr int PASS = THREADS / CHUNKS;       // rows that all threads copy at once
  static constexpr int STAGE_VALUES = (W_ROWS + X_ROWS) * K;
  static constexpr int SUMS_STRIDE = W_ROWS + 4;      // in floats: the 4 × 8 sums of a store lie in 32 banks
  static constexpr int RING_BYTES = STAGES * STAGE_VALUES * 2, SUMS_BYTES = X_ROWS * SUMS_STRIDE * 4;
  static constexpr int SHARED_BYTES = RING_BYTES > SUMS_BYTES ? RING_BYTES : SUMS_BYTES;
  static_assert(K % GK_K_STEP == 0 && K / 16 % 4 == 0, "registers alternate between k steps, and pairs of them");
  static_assert(W_ROWS % PASS == 0 && X_ROWS % PASS == 0, "every thread copies as many chunks");
  static_assert((PASS & (PASS - 1)) == 0 && W_ROWS % 8 == 0, "chunks are exchanged by the bits of a row");
  static_assert(WARP_W % 16 == 0 && (WARP_X == 8 || WARP_X % 16 == 0), "tiles that ldmatrix loads");
};

static constexpr __host__ __device__ int round_up(int value, int step) { return (value + step - 1) / step * step; }

// Rows of W in memory, and rows that the kernel computes: a gated product also writes zeros up to a step.
GK_DEVICE int packed_rows(const gk_linear &call) {
  int rows = call.epilogue == GK_SILU_MUL ? 2 * round_up(call.n_out, GK_GATED_RUN) : call.n_out;
  return round_up(rows, GK_N_STEP);
}
static __host__ __device__ int computed_rows(const gk_linear &call) {
  return call.epilogue == GK_SILU_MUL ? 2 * round_up(call.n_out, GK_K_STEP) : call.n_out;
}

// A thread's share of the copies: one chunk of every PASS-th row of W and of x. Chunk c of row r lies at c ^ (r % 8):
// the same chunk of 8 rows is in 8 groups of banks.
template <class T>
struct Copies {
  const bf16 *w, *x;       // sources of the next step
  int64_t w_pass, x_pass;  // values from a row to the row PASS further
  int w_rows, x_rows;      // number of rows from the thread's own on
  int left;                // number of values of k from its chunk on
  int place, exchanged;    // offset of its first row in a stage, and of its chunk in a row
  bf16 *stage;             // the stage to fill next

  __device__ __forceinline__ Copies(const gk_linear &call, bf16 *ring, int first_w, int first_x) {
    const int row = threadIdx.x / T::CHUNKS, chunk = threadIdx.x % T::CHUNKS, n_in = round_up(call.n_in, GK_K_STEP);
    w = as_bf16(call.w) + (int64_t)(first_w + row) * n_in + chunk * 8;
    x = as_bf16(call.x) + (int64_t)(first_x + row) * call.x_stride + chunk * 8;
    w_pass = (int64_t)T::PASS * n_in, x_pass = T::PASS * call.x_stride;
    w_rows = packed_rows(call) - first_w - row, x_rows = call.n_rows - first_x - row;
    left = n_in - chunk * 8, place = row * T::K, exchanged = (chunk ^ (row & 7)) * 8, stage = ring;
  }

  // Starts one of `n_parts` parts of the copies of a step; the parts are spread among the products. Beyond k and the
  // rows, the copies write zeros and read nothing.
  __device__ __forceinline__ void start(int part, int n_parts) const {
    constexpr int PASSES_W = T::W_ROWS / T::PASS, PASSES = PASSES_W + T::X_ROWS / T::PASS;
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
      if (pass * n_parts / PASSES != part) continue;
      // The row is below PASS, a power of two. Adding pass * PASS flips bits of r % 8, or leaves them.
      bf16 *to = stage + place + pass * T::PASS * T::K + (exchanged ^ ((pass * T::PASS & 7) * 8));
      if (pass < PASSES_W) {
        copy_async_16(to, w + pass * w_pass, left > 0 && pass * T::PASS < w_rows);
      } else {
        copy_async_16(to, x + (pass - PASSES_W) * x_pass, left > 0 && (pass - PASSES_W) * T::PASS < x_rows);
      }
    }
  }

  // Closes the group of copies of a step, when all its parts are started, and moves to the next step.
  __device__ __forceinline__ void commit(const bf16 *ring) {
    copy_async_commit();
    w += T::K, x += T::K, left -= T::K;
    stage = stage == ring + (T::STAGES - 1) * T::STAGE_VALUES ? stage - (T::STAGES - 1) * T::STAGE_VALUES
                                                              : stage + T::STAGE_VALUES;
  }
};

// Operands in two sets of registers: a warp loads one set while the tensor core works on the other.
template <class T>
struct Operands {
  uint32_t w[2][T::TILES_W][4], x[2][T::LOADS_X][4];
  int w_row, x_row;      // the lane's row of the first matrices, in a stage
  int w_chunk, x_chunk;  // its chunk at k = 0, after the exchange of its row

  __device__ __forceinline__ Operands() {
    int lane = lane_id();
    w_row = warp_id() / T::WARPS_X * T::WARP_W + (lane & 15);
    w_chunk = (lane >> 4) ^ (lane & 7);
    x_row = T::W_ROWS + warp_id() % T::WARPS_X * T::WARP_X;
    if constexpr (T::WARP_X == 8) {  // 8 rows by 32 k: two steps at once
      x_row += lane & 7;
      x_chunk = (lane >> 3) ^ (lane & 7);
    } else {  // 16 rows by 16 k
      x_row += (lane & 7) + (lane >> 4) * 8;
      x_chunk = ((lane >> 3) & 1) ^ (lane & 7);
    }
  }

  // Loads the 16 values of k that begin at 16 · k16.
  __device__ __forceinline__ void load(const bf16 *stage, int k16) {
#pragma unroll
    for (int i = 0; i < T::TILES_W; i++)
      load_matrix_x4(w[k16 & 1][i], stage + (w_row + i * 16) * T::K + ((k16 * 2) ^ w_chunk) * 8);
    if constexpr (T::WARP_X == 8) {
      if (k16 % 2 == 0) load_matrix_x4(x[k16 / 2 & 1][0], stage + x_row * T::K + ((k16 * 2) ^ x_chunk) * 8);
    } else {
#pragma unroll
      for (int j = 0; j < T::LOADS_X; j++)
        load_matrix_x4(x[k16 & 1][j], stage + (x_row + j * 16) * T::K + ((k16 * 2) ^ x_chunk) * 8);
    }
  }

  __device__ __forceinline__ void multiply(float (&sums)[T::TILES_W][T::TILES_X][4], int k16) {
#pragma unroll
    for (int i = 0; i < T::TILES_W; i++)
#pragma unroll
      for (int j = 0; j < T::TILES_X; j++) {
        const uint32_t(&pair)[4] = T::WARP_X == 8 ? x[k16 / 2 & 1][0] : x[k16 & 1][j / 2];
        int at = T::WARP_X == 8 ? (k16 & 1) * 2 : (j & 1) * 2;
        mma_bf16(sums[i][j], w[k16 & 1][i], pair[at], pair[at + 1]);
      }
  }
};

// The chain of products over k. On return the ring is free for other uses.
template <class T>
GK_DEVICE void sum_over_k(float (&sums)[T::TILES_W][T::TILES_X][4], const bf16 *ring, Copies<T> &copies, int n_in) {
  constexpr int PRODUCTS = T::K / 16;
  const int n_steps = ceil_div(n_in, T::K);
#pragma unroll 1
  for (int step = 0; step < T::STAGES - 1; step++) {
    copies.start(0, 1);
    copies.commit(ring);
  }
  copy_async_wait<T::STAGES - 2>();
  __syncthreads();
  Operands<T> operands;
  const bf16 *stage = ring;
  operands.load(stage, 0);
#pragma unroll 1
  for (int step = 0; step < n_steps; step++) {
#pragma unroll
    for (int k16 = 0; k16 < PRODUCTS; k16++) {
      // n_in may end inside of a step. The chain stops there: products of zeros need not leave a sum unchanged.
      if (k16 > 0 && k16 * 16 % GK_K_STEP == 0 && step * T::K + k16 * 16 >= n_in) break;
      if (k16 + 1 < PRODUCTS) operands.load(stage, k16 + 1);
      copies.start(k16, PRODUCTS);  // into the stage of the last step, which is free
      if (k16 + 1 == PRODUCTS) {
        copies.commit(ring);
        copy_async_wait<T::STAGES - 2>();
        __syncthreads();  // the next stage has landed; all warps have this one in registers, so it may be refilled
        stage = stage == ring + (T::STAGES - 1) * T::STAGE_VALUES ? ring : stage + T::STAGE_VALUES;
        operands.load(stage, 0);  // zeros after the last step
      }
      operands.multiply(sums, k16);
    }
  }
  copy_async_wait<0>();
  __syncthreads();
}

// ---- Epilogues. The sums lie in shared memory, row by row of x.

// Loads four columns, of which the first n exist; the rest are 0.
GK_DEVICE float4 load_run(const float *from, int n, bool aligned) {
  if (aligned && n >= 4) return *reinterpret_cast<const float4 *>(from);
  return make_float4(n > 0 ? from[0] : 0, n > 1 ? from[1] : 0, n > 2 ? from[2] : 0, n > 3 ? from[3] : 0);
}
GK_DEVICE void store_run(float *to, float4 values, int n, bool aligned) {
  if (aligned && n >= 4) {
    *reinterpret_cast<float4 *>(to) = values;
    return;
  }
  if (n > 0) to[0] = values.x;
  if (n > 1) to[1] = values.y;
  if (n > 2) to[2] = values.z;
  if (n > 3) to[3] = values.w;
}

// GK_STORE and GK_ADD: four columns a thread, with neighbouring threads at neighbouring columns.
template <class T>
GK_DEVICE void write_rows(const gk_linear &call, const float *sums, int first_w, int first_x) {
  constexpr int RUNS = T::W_ROWS / 4, EACH = T::X_ROWS * RUNS / T::THREADS, BATCH = EACH < 8 ? EACH : 8;
  static_assert(T::X_ROWS * RUNS % T::THREADS == 0 && EACH % BATCH == 0, "every thread writes as many runs");
  const float *addends = call.epilogue == GK_ADD ? call.out : call.bias;  // null: no addend
  const int64_t addend_stride = call.epilogue == GK_ADD ? call.out_stride : 0;
  const bool aligned = call.out_stride % 4 == 0 && ((uintptr_t)call.out | (uintptr_t)call.bias) % 16 == 0;
#pragma unroll 1
  for (int first = 0; first < EACH; first += BATCH) {
    float4 addend[BATCH];  // loaded at once, with one wait
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
      int i = (first + b) * T::THREADS + threadIdx.x, row = first_x + i / RUNS, column = first_w + i % RUNS * 4;
      addend[b] = make_float4(0, 0, 0, 0);
      if (addends != nullptr && row < call.n_rows)
        addend[b] = load_run(addends + row * addend_stride + column, call.n_out - column, aligned);
    }
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
      int i = (first + b) * T::THREADS + threadIdx.x, row = first_x + i / RUNS, column = first_w + i % RUNS * 4;
      if (row >= call.n_rows) break;
      float4 sum = *reinterpret_cast<const float4 *>(sums + i / RUNS * T::SUMS_STRIDE + i % RUNS * 4);
      if (addends != nullptr)
        sum = make_float4(addend[b].x + sum.x, addend[b].y + sum.y, addend[b].z + sum.z, addend[b].w + sum.w);
      store_run(call.out + row * call.out_stride + column, sum, call.n_out - column, aligned);
    }
  }
}

GK_DEVICE float silu_mul(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

// GK_SILU_MUL: a thread reads a run of 8 gate values and the 8 up values beside it, and writes 8 columns.
template <class T>
GK_DEVICE void write_gated(const gk_linear &call, const float *sums, int first_w, int first_x) {
  static_assert(GK_GATED_RUN == 8, "16 rows of W are 8 outputs of 2 bytes");
  constexpr int RUNS = T::W_ROWS / 16;
#pragma unroll 1
  for (int i = threadIdx.x; i < T::X_ROWS * RUNS; i += T::THREADS) {
    int row = i / RUNS, run = i % RUNS, column = first_w / 2 + run * 8;
    if (first_x + row >= call.n_rows) break;
    if (column >= round_up(call.n_out, GK_K_STEP)) continue;
    const float *gate = sums + row * T::SUMS_STRIDE + run * 16, *up = gate + 8;
    float values[8];
#pragma unroll
    for (int j = 0; j < 8; j++) values[j] = column + j < call.n_out ? silu_mul(gate[j], up[j]) : 0.0f;
    bf16 *out = as_bf16(call.operand_out) + (int64_t)(first_x + row) * call.out_stride + column;
    *reinterpret_cast<uint4 *>(out) = make_uint4(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]),
                                                 pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7]));
  }
}

template <int VARIANT>
__global__ void __launch_bounds__(Tile<VARIANT>::THREADS, Tile<VARIANT>::BLOCKS) linear_kernel(gk_linear call) {
  using T = Tile<VARIANT>;
  GK_DYNAMIC_SHARED(shared);

  // Blocks that run at the same time share tiles: groups of LINEAR_GROUP row tiles pass over W together.
  const int tiles_w = ceil_div(computed_rows(call), T::W_ROWS), tiles_x = ceil_div(call.n_rows, T::X_ROWS);
  const int in_group = LINEAR_GROUP * tiles_w, group = blockIdx.x / in_group, at = blockIdx.x % in_group;
  const int group_rows = min(LINEAR_GROUP, tiles_x - group * LINEAR_GROUP);
  const int first_x = (group * LINEAR_GROUP + at % group_rows) * T::X_ROWS, first_w = at / group_rows * T::W_ROWS;

  float sums[T::TILES_W][T::TILES_X][4] = {};
  bf16 *ring = reinterpret_cast<bf16 *>(shared);
  Copies<T> copies(call, ring, first_w, first_x);
  sum_over_k<T>(sums, ring, copies, round_up(call.n_in, GK_K_STEP));

  // Lane 4g + t holds rows g and g + 8 of W for rows 2t and 2t + 1 of x.
  float *all = reinterpret_cast<float *>(shared);
  const int g = lane_id() >> 2, t = lane_id() & 3;
  const int w_row = warp_id() / T::WARPS_X * T::WARP_W + g, x_row = warp_id() % T::WARPS_X * T::WARP_X + 2 * t;
#pragma unroll
  for (int i = 0; i < T::TILES_W; i++)
#pragma unroll
    for (int j = 0; j < T::TILES_X; j++) {
      float *to = all + (x_row + j * 8) * T::SUMS_STRIDE + w_row + i * 16;
      to[0] = sums[i][j][0];
      to[T::SUMS_STRIDE] = sums[i][j][1];
      to[8] = sums[i][j][2];
      to[T::SUMS_STRIDE + 8] = sums[i][j][3];
    }
  __syncthreads();
  if (call.epilogue == GK_SILU_MUL) {
    write_gated<T>(call, all, first_w, first_x);
  } else {
    write_rows<T>(call, all, first_w, first_x);
  }
}

// ---- Host

// Estimated seconds of a product, the largest of three times: reading W from memory; reading each block's share of W
// and x from L2; and the reads or products of the SM with the most blocks.
double estimate(const linear_tile &tile, int n_rows, int n_w_rows, int n_in) {
  const double tiles_x = ceil_div(n_rows, tile.x_rows), blocks = tiles_x * ceil_div(n_w_rows, tile.w_rows);
  const double block_bytes = (tile.w_rows + n_rows / tiles_x) * 2.0 * n_in;  // missing rows cost nothing
  const double block_flop = 2.0 * tile.w_rows * tile.x_rows * n_in;
  const double memory = 2.0 * n_w_rows * n_in / HBM_BYTES_PER_S, l2 = blocks * block_bytes / L2_BYTES_PER_S;
  const double busiest = ceil(blocks / SMS) * max(block_bytes / SM_BYTES_PER_S, block_flop / SM_FLOP_PER_S);
  return max(memory, max(l2, busiest));
}

// The variant with the smallest estimate. Of equal estimates (both bound by memory) the smaller variant wins.
int choose(const gk_linear &call) {
  int best = 0;
  double least = 0;
  for (int i = 0; i < GK_LINEAR_VARIANTS; i++) {
    double seconds = estimate(LINEAR_TILES[i], call.n_rows, computed_rows(call), round_up(call.n_in, GK_K_STEP));
    if (i == 0 || seconds < least) best = i, least = seconds;
  }
  return best;
}

template <int VARIANT>
int32_t launch_variant(const gk_linear &call, gk_stream stream) {
  using T = Tile<VARIANT>;
  int32_t error = GK_ALLOW_SHARED(linear_kernel<VARIANT>, T::SHARED_BYTES);  // holds for the current device alone
  if (error != 0) return error;
  int64_t n_blocks = (int64_t)ceil_div(computed_rows(call), T::W_ROWS) * ceil_div(call.n_rows, T::X_ROWS);
  GK_REQUIRE(n_blocks <= INT32_MAX);
  return GK_LAUNCH(linear_kernel<VARIANT>, dim3((unsigned)n_blocks), dim3(T::THREADS), T::SHARED_BYTES, stream, call);
}

}  // namespace

GK_LAUNCHER(linear)(const gk_linear *call, gk_stream stream) {
  const bool gated = call->epilogue == GK_SILU_MUL;
  GK_REQUIRE(call->n_rows >= 0 && call->n_in > 0 && call->n_out > 0);
  GK_REQUIRE(call->n_in <= INT32_MAX - GK_K_STEP && call->n_out <= INT32_MAX / 2 - 2 * GK_N_STEP);
  GK_REQUIRE(call->epilogue == GK_STORE || call->epilogue == GK_ADD || gated);
  GK_REQUIRE(call->bias == nullptr || call->epilogue == GK_STORE);
  GK_REQUIRE(call->variant >= 0 && call->variant <= GK_LINEAR_VARIANTS);
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->w != nullptr && call->x != nullptr && (uintptr_t)call->w % 16 == 0 && (uintptr_t)call->x % 16 == 0);
  GK_REQUIRE(call->x_stride % GK_K_STEP == 0 && call->x_stride >= round_up(call->n_in, GK_K_STEP));
  if (gated) {
    GK_REQUIRE(call->operand_out != nullptr && (uintptr_t)call->operand_out % 16 == 0);
    GK_REQUIRE(call->out_stride % GK_K_STEP == 0 && call->out_stride >= round_up(call->n_out, GK_K_STEP));
  } else {
    GK_REQUIRE(call->out != nullptr && call->out_stride >= call->n_out);
  }
  switch (call->variant == 0 ? choose(*call) : call->variant - 1) {
    case 0: return launch_variant<0>(*call, stream);
    case 1: return launch_variant<1>(*call, stream);
    case 2: return launch_variant<2>(*call, stream);
    default: return launch_variant<3>(*call, stream);
  }
}
