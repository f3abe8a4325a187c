// Stacks that take turns on one OS thread, known to the sanitizers.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emulator {

struct Context {
  void *stack_pointer;
  const void *stack;  // its lowest address
  size_t stack_bytes;
  void *fake_stack;  // AddressSanitizer's
  void *identity;    // ThreadSanitizer's
};

// Of a thread's local variables; a kernel that needs more hits the guard page below and dies (watch_stacks).
#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN)
static constexpr size_t STACK_BYTES = 256 * 1024;
#else
static constexpr size_t STACK_BYTES = 64 * 1024;
#endif

// Memory for `n` stacks, each with a guard page at its low end. Ends the process where there is none.
unsigned char *map_stacks(size_t n);
void unmap_stacks(unsigned char *stacks, size_t n);

// A context that begins in `entry`, which must call `arrived` first and never return.
void prepare(Context &fiber, unsigned char *stack, unsigned place, void (*entry)());
void forget(Context &fiber);
// The context of the OS thread itself.
void adopt_this_thread(Context &home);

void arrived(Context &home);

// Goes on in `to`, until somebody goes on in `from`.
#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN) || !defined(__x86_64__)
void change(Context &from, Context &to);
#else
extern "C" void galley_emulator_change(void **save, void *to);
inline void change(Context &from, Context &to) { galley_emulator_change(&from.stack_pointer, to.stack_pointer); }
#endif

// Happens-before edges for ThreadSanitizer: what was done before `release` is seen after `acquire`. Changing fibers
// gives none.
void acquire(void *tag);
void release(void *tag);

}  // namespace emulator
