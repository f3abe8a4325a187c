// Constants that decide speed and not results, each with its reason. What decides results is in galley_kernels.h.
#pragma once

// ---- sample.cu, select.cuh

// A block has an SM to itself and lives on the latency of L2, so as many warps as the registers allow: with 1024 threads
// there are 64 a thread, and some would be spilled.
static constexpr int SAMPLE_THREADS = 768;
// A small vocabulary takes fewer threads: barriers would cost more than values.
static constexpr int SAMPLE_VALUES_PER_THREAD = 8;
// Keys of one bucket that are gathered, and entries of a page of alternatives: 16 KB.
static constexpr unsigned SELECT_LIST = 2048;
// So many keys are compared each with each; more are counted bit by bit, which costs some ten barriers.
static constexpr unsigned SELECT_PAIRS = 128;

// ---- verify.cu, history.cu

static constexpr int VERIFY_WARPS = 4;
// A history is short beside a row of logits: 4096 tokens are 16 a thread.
static constexpr int HISTORY_THREADS = 256;
