// The state of a CUDA thread, and its waits for other threads.
#pragma once
#include "vocabulary.h"

namespace emulator {

struct AsyncCopies;

// Inputs and results of a warp collective, one column a lane. A lane writes its own column before it arrives; the last
// lane to arrive computes the results of all.
struct alignas(64) Exchange {
  uint64_t value[32], result[32];
  int32_t source[32];
  const void *row[32];  // ldmatrix: addresses
  uint32_t a[4][32];    // mma: operands; ldmatrix: results
  uint32_t b[2][32];
  float2 d[2][32];
};

struct Thread {
  uint3 index;
  uint32_t lane;
  Exchange *exchange;   // that of its warp
  AsyncCopies *copies;  // null until its first cp.async
};

struct Block {
  uint3 index, size, grid;
  unsigned char *shared;
  size_t shared_bytes;
  bool early_copies;
};

extern __thread Thread *current __attribute__((tls_model("initial-exec")));
extern __thread Block block_here __attribute__((tls_model("initial-exec")));

enum class Collective : uint8_t { Sync, Shuffle, Ballot, Match, Add, Min, Max, And, Or, Xor, MinSigned, MaxSigned, Load,
                                  LoadTransposed, Multiply };

// Waits until every live lane of `mask` has arrived. `file` and `line` are for messages.
void meet(Collective what, uint32_t mask, const char *file, int line);

// Waits until every live thread of the block has arrived, and counts the threads that voted true.
struct Votes {
  uint32_t for_it, n_threads;
};
Votes barrier(bool vote, const char *file, int line);

// Orders memory among the threads that call it. Only the race detector needs this; the emulation itself does not.
void fence();

// Ends the process with a message that names block and thread.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <class T>
inline uint64_t bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t raw = 0;
  memcpy(&raw, &value, sizeof value);
  return raw;
}

template <class T>
inline T from_bits(uint64_t raw) {
  T value;
  memcpy(&value, &raw, sizeof value);
  return value;
}

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_here.index)
#define blockDim (emulator::block_here.size)
#define gridDim (emulator::block_here.grid)

// The source location of a wait: default arguments take the location of the caller.
#define GALLEY_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
