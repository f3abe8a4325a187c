// Recordings, the emulation of CUDA graphs: launches that are kept and run later, as often as wanted.
#include "launch.h"

#include "galley_kernels.h"

#include <memory>
#include <vector>

namespace {

struct Launch {
  emulator::Grid grid;
  std::function<void()> body;
};

using Launches = std::vector<Launch>;
thread_local std::unique_ptr<Launches> under_way;

}  // namespace

namespace emulator {

bool is_recording() { return under_way != nullptr; }

void record(const Grid &grid, std::function<void()> body) { under_way->push_back({grid, std::move(body)}); }

}  // namespace emulator

extern "C" {

int32_t galley_emulated_begin_recording(void) {
  if (under_way) return GK_BAD_CALL;
  under_way.reset(new Launches);
  return 0;
}

int32_t galley_emulated_end_recording(void **recording) {
  if (!under_way || !recording) return GK_BAD_CALL;
  *recording = under_way.release();
  return 0;
}

int32_t galley_emulated_replay(const void *recording) {
  if (!recording || under_way) return GK_BAD_CALL;
  for (const Launch &launch : *static_cast<const Launches *>(recording)) {
    emulator::run(
        launch.grid, [](const void *body) { (*static_cast<const std::function<void()> *>(body))(); }, &launch.body);
  }
  return 0;
}

void galley_emulated_free_recording(void *recording) { delete static_cast<Launches *>(recording); }

}  // extern "C"
