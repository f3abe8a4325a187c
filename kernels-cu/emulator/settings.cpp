// Settings of the emulation, from the environment.
#include "settings.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace emulator {
namespace {

[[noreturn]] void refuse(const char *name, const char *value, const char *allowed) {
  fprintf(stderr, "emulator: %s is \"%s\": it may be %s\n", name, value, allowed);
  abort();
}

// The index of the value in `words`; 0 if the variable is not set.
unsigned choice(const char *name, const char *const *words, unsigned n_words, const char *allowed) {
  const char *value = getenv(name);
  if (!value) return 0;
  for (unsigned i = 0; i < n_words; i++) {
    if (!strcmp(value, words[i])) return i;
  }
  refuse(name, value, allowed);
}

uint64_t number(const char *name, uint64_t unset, uint64_t least, uint64_t most, const char *allowed) {
  const char *value = getenv(name);
  if (!value) return unset;
  char *end = nullptr;
  const uint64_t parsed = strtoull(value, &end, 10);
  if (*value < '0' || *value > '9' || *end || parsed < least || parsed > most) refuse(name, value, allowed);
  return parsed;
}

Settings read() {
  const char *const schedules[] = {"fifo", "lifo", "random"}, *const copies[] = {"late", "early"};
  const char *const works[] = {"late", "early", "random"};
  // Two threads suffice to find races between blocks, and tests run in parallel anyway.
  const unsigned n_threads = std::min(2u, std::max(1u, std::thread::hardware_concurrency()));
  Settings found;
  found.schedule = (Schedule)choice("GALLEY_EMULATOR_SCHEDULE", schedules, 3, "fifo, lifo or random");
  found.early_copies = choice("GALLEY_EMULATOR_COPIES", copies, 2, "late or early") == 1;
  found.seed = number("GALLEY_EMULATOR_SEED", 0, 0, UINT64_MAX, "a number");
  found.n_threads = (unsigned)number("GALLEY_EMULATOR_THREADS", n_threads, 1, 256, "a number from 1 to 256");
  found.shared_bytes =
      number("GALLEY_EMULATOR_SHARED_BYTES", 232448, 49152, 232448, "a number of bytes from 49152 to 232448");
  found.work = (When)choice("GALLEY_EMULATOR_WORK", works, 3, "late, early or random");
  found.memory_bytes = number("GALLEY_EMULATOR_MEMORY_MIB", 65536, 1, 1 << 20, "a number of MiB") << 20;
  return found;
}

}  // namespace

const Settings &settings() {
  static const Settings once = read();
  return once;
}

}  // namespace emulator
