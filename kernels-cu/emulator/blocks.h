// Runs the threads of a block in turns.
#pragma once
#include "launch.h"

namespace emulator {

// begin_blocks prepares this OS thread for a grid; run_block runs one block, with the same result on any OS thread.
struct Blocks {
  const Grid &grid;
  Body body;
  const void *argument;
};
void begin_blocks(const Blocks &blocks);
void run_block(const Blocks &blocks, uint64_t which);

}  // namespace emulator
