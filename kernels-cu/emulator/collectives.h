// What the lanes of a warp compute together, once all are there.
#pragma once
#include "threads.h"

namespace emulator {

const char *name_of(Collective what);

// Fills the columns of the lanes of `here` with results.
void compute(Collective what, uint32_t here, Exchange &warp);

}  // namespace emulator
