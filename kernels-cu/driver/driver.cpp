// Error names, the lock of the driver, and the end of the process with a message.
#include "driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace driver {
namespace {

struct Text {
  Result result;
  const char *name, *meaning;
};

const Text TEXTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const Text *find(int result) {
  for (const Text &text : TEXTS) {
    if (text.result == result) return &text;
  }
  return nullptr;
}

}  // namespace

thread_local void *current_context = nullptr;

const char *name_of(int result) {
  const Text *text = find(result);
  return text ? text->name : nullptr;
}

const char *meaning_of(int result) {
  const Text *text = find(result);
  return text ? text->meaning : nullptr;
}

std::mutex &lock() {
  static std::mutex *const mutex = new std::mutex;
  return *mutex;
}

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("emulated driver: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

}  // namespace driver
