// Ends the process with a message that says where and why.
#pragma once
#include "worker.h"

namespace emulator {

// Reports that no thread of the block can continue.
[[noreturn]] void deadlock(Worker &w);

// From this call on, a kernel on this OS thread that needs more than STACK_BYTES of stack ends the process with a
// message. Under a sanitizer the call does nothing, since sanitizers report such a kernel themselves.
void watch_stacks();

}  // namespace emulator
