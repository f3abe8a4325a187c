// The CUDA driver on the CPU, for tests: a libcuda.so with the calls that the backend makes, over the emulated kernels.
//
// By default, the work of a stream runs when a call waits for it, and no sooner. A host that changes an input too
// early, or reads an output without waiting, then gets wrong results. Only stream work can access device memory: a host
// access to a device address faults, and so does work that leaves the pages of its buffer. Calls behave as the
// documentation of the CUDA driver says, and return the errors that it lists. Undefined behaviour that this driver
// detects ends the process with a message. Environment variables, read once (../emulator/settings.cpp):
//
//   GALLEY_EMULATOR_WORK        late, early or random: when work runs if no call waits for it
//   GALLEY_EMULATOR_SEED        seed for random
//   GALLEY_EMULATOR_MEMORY_MIB  total device memory
//
// The driver has one device, one context and in-order streams. It does not implement captured copies, nor a stream's
// wait for another stream's event, because the backend makes no such calls.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace driver {

// The values of CUresult.
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
const char *name_of(int result);     // null for other numbers
const char *meaning_of(int result);  // null for other numbers

// Every call holds this lock. It protects all state of the driver.
std::mutex &lock();

// The current context of this thread, or null.
extern thread_local void *current_context;

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace driver
