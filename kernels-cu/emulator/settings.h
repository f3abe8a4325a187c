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
  // Largest shared memory of a block. sm_90 has 227 KiB; smaller values select the variants of smaller devices.
  uint64_t shared_bytes;
  // For the driver: when stream work runs if no call waits for it, and the total device memory.
  When work;
  uint64_t memory_bytes;
};

// Reads the settings once. An invalid value ends the process with a message that lists the valid ones.
const Settings &settings();

}  // namespace emulator
