// Settings of the emulation, from the environment.
#pragma once
#include <cstdint>

namespace emulator {

enum class Schedule : uint8_t { Fifo, Lifo, Random };
enum class When : uint8_t { Late, Early, Random };

struct Settings {
  Schedule schedule;
  uint64_t seed;
  bool early_copies;
  unsigned n_threads;
  // Most shared memory of a block. 227 KiB are what sm_90 gives; less is to run what smaller devices run.
  uint64_t shared_bytes;
  // Of the driver: when the work of streams is done that nobody waits for, and all memory of the device.
  When work;
  uint64_t memory_bytes;
};

// Read once. A value that is none ends the process with a sentence that names those that are.
const Settings &settings();

}  // namespace emulator
