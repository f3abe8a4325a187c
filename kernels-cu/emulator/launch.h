// Launches kernels, at once or on a stream.
#pragma once
#include "stream.h"
#include "threads.h"

namespace emulator {

struct Shared {
  unsigned char *shared;
};
inline Shared block() { return {block_here.shared}; }

// The values of the CUDA runtime.
enum : int32_t { INVALID_VALUE = 1, INVALID_CONFIGURATION = 9 };
const char *error_name(int32_t error);

// Dynamic shared memory that a kernel may use without allow_shared, and the limit of allow_shared.
static constexpr size_t MAX_UNASKED_SHARED = 49152;
size_t shared_bytes_limit();
int32_t allow_shared(const void *kernel, size_t bytes);

struct Grid {
  const void *kernel;
  dim3 n_blocks, block;
  size_t shared_bytes;
};
int32_t check(const Grid &grid);

typedef void (*Body)(const void *argument);
void run(const Grid &grid, Body body, const void *argument);

template <class... P, class... A>
int32_t launch(void *stream, void (*kernel)(P...), dim3 n_blocks, dim3 block, size_t shared_bytes, A... arguments) {
  const Grid grid = {reinterpret_cast<const void *>(kernel), n_blocks, block, shared_bytes};
  if (int32_t error = check(grid)) return error;
  auto body = [=] { kernel(arguments...); };
  auto work = [=] {
    run(grid, [](const void *argument) { (*static_cast<const decltype(body) *>(argument))(); }, &body);
  };
  if (stream) return static_cast<Stream *>(stream)->enqueue(work);
  work();
  return 0;
}

}  // namespace emulator
