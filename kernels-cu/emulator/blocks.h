// Runs the threads of a block by turns.
#pragma once
#include "launch.h"

namespace emulator {

// Runs blocks of a grid on this OS thread, until `next` has none left. Each gives the same result on any OS thread.
struct Blocks {
  const Grid &grid;
  Body body;
  const void *argument;
};
void begin_blocks(const Blocks &blocks);
void run_block(const Blocks &blocks, uint64_t which);

}  // namespace emulator
