// Stacks that take turns on one OS thread, with switches announced to the sanitizers.
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

// Size of a thread's stack. A kernel that needs more hits the guard page below it, and the process ends (watch_stacks).
#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN)
static constexpr size_t STACK_BYTES = 256 * 1024;
#else
static constexpr size_t STACK_BYTES = 64 * 1024;
#endif

// Maps `n` stacks, each with a guard page at its low end. Ends the process if there is no memory.
unsigned char *map_stacks(size_t n);
void unmap_stacks(unsigned char *stacks, size_t n);

// Prepares a context that begins in `entry`, which must call `arrived` first and never return.
void prepare(Context &fiber, unsigned char *stack, unsigned place, void (*entry)());
void forget(Context &fiber);
// The context of the OS thread itself.
void adopt_this_thread(Context &home);

void arrived(Context &home);

// Continues in `to`, until another context continues in `from`.
#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN) || !defined(__x86_64__)
void change(Context &from, Context &to);
#else
extern "C" void galley_emulator_change(void **save, void *to);
inline void change(Context &from, Context &to) { galley_emulator_change(&from.stack_pointer, to.stack_pointer); }
#endif

// Happens-before edges for ThreadSanitizer: accesses before `release` happen before accesses after `acquire`. A switch
// of fibers gives no edge.
void acquire(void *tag);
void release(void *tag);

}  // namespace emulator
