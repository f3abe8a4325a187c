// Constants that decide speed, each with its reason. Constants that decide results are in galley_kernels.h.
#pragma once

// Tiles of keys and values that an attention block holds. The load of a tile starts as soon as its stage is free: keys
// after the scores of the previous tile of that stage, values after its products. So with S stages at least (S - 1/2)
// tiles are in flight. A tile of head_dim 128 is 32 KB, and an SM of an H200 needs about 36 KB in flight for its share
// of the bandwidth (4.8 TB/s · 1 us / 132): two stages, with two blocks on an SM, are more than twice that.
// Four m-tiles of head_dim 128 serve prompts, which arithmetic bounds: with one stage two blocks still fit on an SM
// (2 · 97 KB of 228), and one multiplies while the other waits.
constexpr int attention_stages(int head_dim, int m_tiles) { return head_dim == 128 && m_tiles == 4 ? 1 : 2; }

namespace gk {

// ---- Matrix products (linear.cu)

// The output tile of a block of threads: w_rows outputs of x_rows rows, in steps of k values. A ring in shared memory
// holds `stages` steps. The warps_w · warps_x warps divide the outputs and never k.
struct linear_tile {
  int w_rows, x_rows, k, stages, warps_w, warps_x, blocks_per_sm;
};

// About 18 KB in flight on an SM cover the 700 ns of a read at 3.35 TB/s / 132.
constexpr linear_tile LINEAR_TILES[] = {
    // Decode. 4096 outputs are 128 blocks for 132 SMs, each with 40 KB of W in flight; of more blocks, three fit on an
    // SM. A step of 128 is a chain of 8 products of ~33 cycles, against ~560 cycles for its 8 KB of W.
    {32, 8, 128, 6, 2, 1, 3},
    {32, 16, 128, 6, 2, 1, 3},
    // Verification. As many rows of x as of W: otherwise L2 would deliver more x than W. 96 KB a block keep an SM
    // supplied even if there are fewer blocks than SMs.
    {64, 64, 64, 6, 2, 2, 2},
    // Prefill. A warp computes 64 × 64, so that 32 products need 4 KB from shared memory: about two thirds of its
    // bandwidth at the rate of mma.sync. Two blocks of 96 KB an SM: one multiplies while the other loads or writes.
    {128, 128, 64, 3, 2, 2, 2},
};
// Row tiles that share W tiles while these are in L2: with two blocks an SM, about 16 × 16 tiles run at once.
constexpr int LINEAR_GROUP = 16;

// The GPU that the choice of a variant assumes: an H100 (SXM). Only ratios matter.
constexpr int SMS = 132;
constexpr double HBM_BYTES_PER_S = 3.35e12;
constexpr double L2_BYTES_PER_S = 5.5e12;
constexpr double SM_BYTES_PER_S = 64 * 1.755e9;      // from L2 to one SM
constexpr double SM_FLOP_PER_S = 0.62 * 990e12 / 132;  // mma.sync reaches 62 % of the wgmma rate

}  // namespace gk

// ---- sample.cu, cutoff.cuh

// A block has an SM to itself and is bound by the latency of L2, so it takes as many warps as the registers allow: 1024
// threads would leave 64 registers a thread, and some would spill.
static constexpr int SAMPLE_THREADS = 768;
// For a small vocabulary, threads with this many values each: more threads would cost more in barriers than they save.
static constexpr int SAMPLE_VALUES_PER_THREAD = 8;
// Entries of the list in shared memory: keys of one bucket, or a page of alternatives. 16 KB.
static constexpr unsigned SELECT_LIST = 2048;
// Up to this many keys are compared pairwise. A radix select counts longer lists, and costs about ten barriers.
static constexpr unsigned SELECT_PAIRS = 128;

// ---- verify.cu, history.cu

static constexpr int VERIFY_WARPS = 4;
// A history is short beside a row of logits: 4096 tokens are 16 a thread. A thread loads HISTORY_AHEAD tokens at once;
// one at a time would wait for L2 each time: 0.2 ms for 128k tokens.
static constexpr int HISTORY_THREADS = 256;
static constexpr int HISTORY_AHEAD = 8;
