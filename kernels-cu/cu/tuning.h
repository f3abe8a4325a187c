// Constants that decide speed and not results, each with its reason. What decides results is in galley_kernels.h.
#pragma once

// Tiles of keys and values that a block of attention holds. Loads of a tile start as soon as its place is free: keys
// after the scores of the tile before them in that place, values after its products. So with S stages (S - 1/2) tiles
// are on their way at the least. A tile of head_dim 128 is 32 KB, and an SM of an H200 keeps its share of the bandwidth
// busy with about 36 KB (4.8 TB/s · 1 us / 132): two stages, with two blocks on an SM, are more than twice that.
// Four m-tiles of head_dim 128 are for prompts, where arithmetic counts and not bytes: with one stage two blocks still
// fit (2 · 97 KB of 228), so that one multiplies while the other waits.
constexpr int attention_stages(int head_dim, int m_tiles) { return head_dim == 128 && m_tiles == 4 ? 1 : 2; }

namespace gk {

// ---- Matrix products (linear.cu)

// What a block of threads computes: w_rows outputs of x_rows rows, in steps of k values that wait in a ring of `stages`
// places in shared memory. Its warps_w · warps_x warps share the outputs and never k.
struct linear_tile {
  int w_rows, x_rows, k, stages, warps_w, warps_x, blocks_per_sm;
};

// What is in flight: about 18 KB an SM cover the 700 ns of a read at 3.35 TB/s / 132.
constexpr linear_tile LINEAR_TILES[] = {
    // Decode. 4096 outputs are 128 blocks for 132 SMs, each with 40 KB of W under way: three blocks fit on an SM where
    // there are more. A step of 128 is 8 products of ~33 cycles in a chain, against ~560 cycles for its 8 KB of W.
    {32, 8, 128, 6, 2, 1, 3},
    {32, 16, 128, 6, 2, 1, 3},
    // Verification. As many rows of x as of W, or L2 would deliver more x than W; 96 KB a block keep the SMs that have
    // one supplied even where there are fewer blocks than SMs.
    {64, 64, 64, 6, 2, 2, 2},
    // Prefill. 64 × 64 a warp, so that 32 products need 4 KB from shared memory: about two thirds of its bandwidth at
    // the rate of mma.sync. Two blocks of 96 KB an SM: one multiplies while the other fills its ring or writes.
    {128, 128, 64, 3, 2, 2, 2},
};
// Tiles of rows that share tiles of W while they are in L2: with two blocks an SM, about 16 × 16 tiles are under way.
constexpr int LINEAR_GROUP = 16;

// The machine that a variant is chosen for: an H100 (SXM). Only ratios matter.
constexpr int SMS = 132;
constexpr double HBM_BYTES_PER_S = 3.35e12;
constexpr double L2_BYTES_PER_S = 5.5e12;
constexpr double SM_BYTES_PER_S = 64 * 1.755e9;      // from L2 to one SM
constexpr double SM_FLOP_PER_S = 0.62 * 990e12 / 132;  // mma.sync: 62 % of what wgmma reaches

}  // namespace gk

// ---- sample.cu, cutoff.cuh

// A block has an SM to itself and lives on the latency of L2, so as many warps as the registers allow: with 1024
// threads there are 64 a thread, and some would be spilled.
static constexpr int SAMPLE_THREADS = 768;
// A small vocabulary takes fewer threads: barriers would cost more than values.
static constexpr int SAMPLE_VALUES_PER_THREAD = 8;
// Keys of one bucket that are gathered, and entries of a page of alternatives: 16 KB.
static constexpr unsigned SELECT_LIST = 2048;
// So many keys are compared each with each; more are counted bit by bit, which costs some ten barriers.
static constexpr unsigned SELECT_PAIRS = 128;

// ---- verify.cu, history.cu

static constexpr int VERIFY_WARPS = 4;
// A history is short beside a row of logits: 4096 tokens are 16 a thread. One token after the other would wait for L2
// each time: 0.2 ms for 128k tokens.
static constexpr int HISTORY_THREADS = 256;
static constexpr int HISTORY_AHEAD = 8;
