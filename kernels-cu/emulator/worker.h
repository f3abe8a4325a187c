// The state of an OS thread that runs blocks: threads as fibers, warps, and waits.
#pragma once
#include "collectives.h"
#include "copies.h"
#include "fibers.h"
#include "launch.h"
#include "settings.h"

#include <memory>
#include <vector>

namespace emulator {

constexpr unsigned MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32;
constexpr int MAX_MEETINGS = 8;  // open at a time in a warp, each with another mask

struct Fiber : Thread {
  Context context;
  struct WarpState *warp;
  unsigned linear;
  // The wait that suspends the fiber.
  const char *waits_for, *file;
  int line;
  uint32_t mask;
  std::unique_ptr<AsyncCopies> memory_of_copies;
};

struct Meeting {
  uint32_t mask, arrived;
  Collective what;
  const char *file;
  int line;
  char tags[2];    // for the race detector; two, as a fast lane reaches the next meeting before a slow lane leaves this
  uint8_t n_past;  // its low bit chooses the tag
};

struct WarpState {
  Exchange exchange;
  Meeting meetings[MAX_MEETINGS];
  uint32_t alive, ready, at_barrier;  // masks of lanes
  unsigned number;
};

// All state that an OS thread needs to run blocks.
struct Worker {
  Context home = {};
  std::vector<unsigned char *> stacks;  // one mapping for 32 threads
  std::vector<std::unique_ptr<Fiber[]>> fibers;
  std::unique_ptr<WarpState[]> warps{new WarpState[MAX_WARPS]()};
  uint32_t ready_warps = 0;
  unsigned n_threads = 0, n_alive = 0, n_at_barrier = 0, n_votes = 0;
  Votes votes = {};
  const char *barrier_file = nullptr;
  int barrier_line = 0;
  char barrier_tags[2], start_tag, end_tag;
  unsigned n_barriers = 0;
  dim3 shape = dim3(0, 0, 0);
  Schedule schedule = Schedule::Fifo;
  uint64_t random = 0;
  Body body = nullptr;
  const void *argument = nullptr;
  unsigned char *shared = nullptr;
  size_t shared_bytes = 0, shared_room = 0;

  Fiber &fiber(unsigned i) { return fibers[i / 32][i % 32]; }
  ~Worker() {
    for (auto &warp : fibers) {
      for (int lane = 0; lane < 32; lane++) forget(warp[lane].context);
    }
    for (unsigned char *memory : stacks) unmap_stacks(memory, 32);
    free(shared);
  }
};

}  // namespace emulator
