// Computes the collectives of a warp, once all their lanes have arrived.
#pragma once
#include "threads.h"

namespace emulator {

const char *name_of(Collective what);

// Writes the results to the columns of the lanes of `here`.
void compute(Collective what, uint32_t here, Exchange &warp);

}  // namespace emulator
