// Runs CUDA C++ kernels on the CPU, for tests: one fiber for each CUDA thread. Included instead of <cuda_runtime.h>
// when a .cu file is compiled by a C++17 compiler (-x c++).
//
// The threads of a block run one at a time and change places where they wait for each other: at barriers, and at warp
// collectives, whose result is computed by the last lane that arrives. What hardware leaves undefined and this can see
// ends the process with a sentence. Environment, read once (settings.cpp):
//
//   GALLEY_EMULATOR_SCHEDULE  fifo, lifo or random: which thread goes on where several could
//   GALLEY_EMULATOR_SEED      of the random schedule
//   GALLEY_EMULATOR_COPIES    late or early: cp.async lands at the wait (shows a missing wait), or at once (shows a
//                             stage that is refilled while it is read)
//   GALLEY_EMULATOR_THREADS   how many OS threads share the blocks of a grid
//
// What it cannot do: blocks that wait for later blocks, __activemask, clocks, textures, cooperative groups.
#pragma once
#include "vocabulary.h"

#include "threads.h"

#include "arithmetic.h"
#include "atomics.h"
#include "copies.h"
#include "launch.h"
#include "matrices.h"
#include "warps.h"
