// Runs CUDA C++ kernels on the CPU, for tests: one fiber for each CUDA thread. Included instead of <cuda_runtime.h>
// when a C++17 compiler compiles a .cu file (-x c++).
//
// The threads of a block run one at a time. They switch where they wait for each other: at barriers, and at warp
// collectives. The last lane to arrive computes the result of a collective. Undefined behaviour that the emulation
// detects ends the process with a message. Environment variables, read once (settings.cpp):
//
//   GALLEY_EMULATOR_SCHEDULE      fifo, lifo or random: which of several ready threads runs next
//   GALLEY_EMULATOR_SEED          seed of the random schedule
//   GALLEY_EMULATOR_COPIES        late or early: cp.async lands at the wait (shows a missing wait), or at once (shows a
//                                 stage that is refilled while it is read)
//   GALLEY_EMULATOR_THREADS       number of OS threads that share the blocks of a grid
//   GALLEY_EMULATOR_SHARED_BYTES  shared memory available to a block
//
// Not supported: blocks that wait for later blocks, __activemask, clocks, textures, cooperative groups.
#pragma once
#include "vocabulary.h"

#include "threads.h"

#include "arithmetic.h"
#include "atomics.h"
#include "copies.h"
#include "launch.h"
#include "matrices.h"
#include "warps.h"
