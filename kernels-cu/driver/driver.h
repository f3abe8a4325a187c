// The CUDA driver on the CPU, for tests: a libcuda.so with the calls that the backend makes, over the emulated kernels.
//
// Work on a stream is done when somebody waits for it, and no sooner: what the host changes too early, or reads without
// waiting, is wrong then. Device memory can be accessed by work alone: a host that follows a device address dies, as
// does work that leaves the pages of its buffer. A call does what the documentation of the driver says of it, and
// refuses what that says is an error; what is undefined there and can be seen here ends the process with a sentence.
// Environment, read once (../emulator/settings.cpp):
//
//   GALLEY_EMULATOR_WORK        late, early or random: when work is done that nobody waits for
//   GALLEY_EMULATOR_SEED        of the random one
//   GALLEY_EMULATOR_MEMORY_MIB  all memory of the device
//
// One device, one context, streams in order. Copies that are captured, and streams that wait for events of others, are
// not there: nobody makes them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace driver {

// Numbers as those of CUresult.
enum Result : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_WRONG_THREAD = 908,
};
const char *name_of(int result);     // null for numbers that are none of these
const char *meaning_of(int result);  // likewise

// Held by every call: what the driver has is behind it.
std::mutex &lock();

// The context that this thread calls in; null where it has none.
extern thread_local void *current_context;

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace driver
