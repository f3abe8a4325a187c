// Settings of the emulation, from the environment.
#pragma once
#include <cstdint>

namespace emulator {

enum class Schedule : uint8_t { Fifo, Lifo, Random };

struct Settings {
  Schedule schedule;
  uint64_t seed;
  bool early_copies;
  unsigned n_threads;
};

// Read once. A value that is none ends the process with a sentence that names those that are.
const Settings &settings();

}  // namespace emulator
