// Ends the process, with a sentence that says where and why.
#pragma once
#include "worker.h"

namespace emulator {

// No thread of the block can go on.
[[noreturn]] void deadlock(Worker &w);

// From here on, this OS thread says so where a kernel needs more than a stack of STACK_BYTES. Not under a sanitizer,
// which has its own sentence.
void watch_stacks();

}  // namespace emulator
