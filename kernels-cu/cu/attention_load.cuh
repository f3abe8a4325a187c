// Shared memory of an attention block, and the copies of queries, keys and values into it.
#pragma once

#include "attention_view.cuh"

namespace {

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
// Padding of operand rows, in values: each row starts 16 bytes further in the banks, so ldmatrix meets no conflict.
constexpr int PADDING = 8;

// Shared memory of a block, in bytes from its beginning. Every part is a multiple of 16.
template <int HEAD_DIM, int M_TILES>
struct Shared {
  static constexpr int ROWS = 16 * M_TILES;
  static constexpr int STRIDE = HEAD_DIM + PADDING;
  static constexpr int P_STRIDE = TILE + PADDING;
  // The total of earlier partitions, in floats of a thread: o, the maxima of two rows an m-tile, and l of two rows.
  static constexpr int TOTAL = M_TILES * (HEAD_DIM / 8 + 2) + 2;
  static constexpr int QUERIES_BYTES = ROWS * STRIDE * 2;
  static constexpr int P_BYTES = ROWS * P_STRIDE * 2;
  static constexpr int MAXIMA_BYTES = ROWS * WARPS * 4;
  static constexpr int TOTAL_BYTES = TOTAL * THREADS * 4;
  static constexpr int HALF_STAGE_BYTES = TILE * STRIDE * 2;
  static constexpr int STAGE_BYTES = 2 * HALF_STAGE_BYTES + TILE * 4;
  static constexpr int bytes(int stages) {
    return QUERIES_BYTES + P_BYTES + MAXIMA_BYTES + TOTAL_BYTES + stages * STAGE_BYTES;
  }

  bf16 *queries;
  bf16 *p;
  float *maxima;
  float *total;
  bf16 *keys;      // one tile for each stage
  bf16 *values;    // one tile for each stage
  int *positions;  // positions of a tile's tokens, for each stage

  GK_DEVICE_MEMBER Shared(unsigned char *base, int stages) {
    queries = reinterpret_cast<bf16 *>(base);
    p = reinterpret_cast<bf16 *>(base += QUERIES_BYTES);
    maxima = reinterpret_cast<float *>(base += P_BYTES);
    total = reinterpret_cast<float *>(base += MAXIMA_BYTES);
    keys = reinterpret_cast<bf16 *>(base += TOTAL_BYTES);
    values = reinterpret_cast<bf16 *>(base += stages * HALF_STAGE_BYTES);
    positions = reinterpret_cast<int *>(base + stages * HALF_STAGE_BYTES);
  }
};

// Waits until at most n groups of copies are in flight. The largest n in use is 2 · stages - 1.
GK_DEVICE void wait_for_all_but(int n) {
  switch (n) {
    case 0: return copy_async_wait<0>();
    case 1: return copy_async_wait<1>();
    case 2: return copy_async_wait<2>();
    default: return copy_async_wait<3>();
  }
}

// Copies a row in 16-byte pieces, eight lanes a row, so that a warp reads whole lines. Invalid pieces become zero.
template <int HEAD_DIM>
GK_DEVICE void copy_row(bf16 *to, const bf16 *from, bool valid, int head_dim) {
#pragma unroll
  for (int i = 0; i < HEAD_DIM; i += 64) {
    const int column = i + lane_id() % 8 * 8;
    if (HEAD_DIM % 64 == 0 || column < HEAD_DIM)
      copy_async_16(to + column, from + column, valid && column < head_dim);
  }
}

// Copies the queries of a unit. The copies join the group of the first keys.
template <int HEAD_DIM, int M_TILES>
GK_DEVICE void load_queries(const Shared<HEAD_DIM, M_TILES> &shared, const gk_attention &call, const View &view,
                            int kv_head) {
#pragma unroll
  for (int pass = 0; pass < M_TILES; pass++) {
    const int row = pass * 16 + (int)threadIdx.x / 8;
    const bool valid = row < view.n_queries;
    const int query = view.first_query + (valid ? row : 0);
    const int head = kv_head * view.group + query % view.group;
    const int64_t of_token = (view.first_row + query / view.group) * call.q_stride;
    const bf16 *from = as_bf16(call.q) + of_token + head * call.kv.head_dim;
    copy_row<HEAD_DIM>(shared.queries + row * shared.STRIDE, from, valid, call.kv.head_dim);
  }
}

// Copies tiles to shared memory, first the keys of a tile and then its values. One lane of a warp looks up one token.
template <int HEAD_DIM, int M_TILES>
struct Loader {
  const gk_kv &kv;
  const View &view;
  const Shared<HEAD_DIM, M_TILES> &shared;
  Tiles tiles;
  Token token;      // this lane's token of the next tile, looked up early
  int64_t address;  // of this lane's token in the current tile; negative: no token
  int kv_head;

  // A tile of 64 tokens takes four passes. In each pass a warp copies four tokens, eight lanes a token.
  static GK_DEVICE_MEMBER int token_of_lane() { return lane_id() % 16 / 4 * 16 + warp_id() * 4 + lane_id() % 4; }

  GK_DEVICE_MEMBER Loader(const gk_kv &kv, const View &view, const Shared<HEAD_DIM, M_TILES> &shared, Tiles tiles,
                          int kv_head)
      : kv(kv), view(view), shared(shared), tiles(tiles), address(-1), kv_head(kv_head) {
    token = find_token(tiles, view, token_of_lane());
  }

  GK_DEVICE_MEMBER void copy_tile(bf16 *to, int64_t from) const {
#pragma unroll
    for (int pass = 0; pass < TILE / 16; pass++) {
      const int64_t at = __shfl_sync(ALL_LANES, address, pass * 4 + lane_id() / 8);
      const int row = pass * 16 + warp_id() * 4 + lane_id() / 8;
      copy_row<HEAD_DIM>(to + row * Shared<HEAD_DIM, M_TILES>::STRIDE, as_bf16(kv.base) + (at < 0 ? 0 : at + from),
                         at >= 0, kv.head_dim);
    }
  }

  GK_DEVICE_MEMBER void keys(int stage) {
    if (!tiles.done()) {
      address = -1;
      if (token.position >= 0)
        address = key_address(kv, kv.layer, kv_head, token.block, token.slot) - as_bf16(kv.base);
      if (lane_id() < 16) shared.positions[stage * TILE + token_of_lane()] = token.position;
      copy_tile(shared.keys + stage * TILE * Shared<HEAD_DIM, M_TILES>::STRIDE, 0);
    }
    copy_async_commit();
  }

  GK_DEVICE_MEMBER void values(int stage) {
    if (!tiles.done()) {
      copy_tile(shared.values + stage * TILE * Shared<HEAD_DIM, M_TILES>::STRIDE, kv.values_at);
      next_tile(tiles, view);
      token = find_token(tiles, view, token_of_lane());
    }
    copy_async_commit();
  }
};

}  // namespace
