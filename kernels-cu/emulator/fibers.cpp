// Stacks that take turns on one OS thread, with switches announced to the sanitizers.
#include "vocabulary.h"

#include "fibers.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef GALLEY_EMULATOR_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef GALLEY_EMULATOR_TSAN
extern "C" {
void *__tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void *);
void __tsan_switch_to_fiber(void *, unsigned);
void *__tsan_get_current_fiber();
void __tsan_acquire(void *);
void __tsan_release(void *);
}
#endif

// Saves the callee-saved registers and the stack pointer, and continues on the other stack.
#ifdef __x86_64__
extern "C" void galley_emulator_change(void **save, void *to);
asm(R"(
.text
.p2align 4
.globl galley_emulator_change
.hidden galley_emulator_change
.type galley_emulator_change,@function
galley_emulator_change:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size galley_emulator_change,.-galley_emulator_change
)");
#define GALLEY_FAST_CHANGE 1
#endif

namespace emulator {

unsigned char *map_stacks(size_t n) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *stacks = mmap(nullptr, n * STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (stacks == MAP_FAILED) {
    perror("emulator: no memory for the stacks of threads");
    abort();
  }
  for (size_t i = 0; i < n; i++) mprotect((unsigned char *)stacks + i * STACK_BYTES, (size_t)getpagesize(), PROT_NONE);
  return (unsigned char *)stacks;
}

void unmap_stacks(unsigned char *stacks, size_t n) { munmap(stacks, n * STACK_BYTES); }

void prepare(Context &fiber, unsigned char *stack, unsigned place, void (*entry)()) {
  const size_t guard = (size_t)getpagesize();
  // At equal offsets, all stacks would share the same few cache sets.
  const size_t bytes = STACK_BYTES - (place * 5 % 61) * 192;
  fiber = {nullptr, stack + guard, STACK_BYTES - guard, nullptr, nullptr};
#ifdef GALLEY_FAST_CHANGE
  void **top = (void **)(stack + bytes) - 1;
  *top = nullptr;  // the return address of `entry`; also aligns the stack
  *--top = (void *)entry;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.stack_pointer = top;
#else
  ucontext_t *context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack + guard;
  context->uc_stack.ss_size = bytes - guard;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber.stack_pointer = context;
#endif
#ifdef GALLEY_EMULATOR_TSAN
  fiber.identity = __tsan_create_fiber(0);
#endif
}

void forget(Context &fiber) {
#ifndef GALLEY_FAST_CHANGE
  delete (ucontext_t *)fiber.stack_pointer;
#endif
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_destroy_fiber(fiber.identity);
#endif
  fiber = {};
}

void adopt_this_thread(Context &home) {
#ifndef GALLEY_FAST_CHANGE
  if (!home.stack_pointer) home.stack_pointer = new ucontext_t;
#endif
#ifdef GALLEY_EMULATOR_TSAN
  home.identity = __tsan_get_current_fiber();
#endif
  (void)home;
}

#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN) || !defined(__x86_64__)
void change(Context &from, Context &to) {
#ifdef GALLEY_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_switch_to_fiber(to.identity, 1);  // no happens-before edge
#endif
#ifdef GALLEY_FAST_CHANGE
  galley_emulator_change(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext((ucontext_t *)from.stack_pointer, (ucontext_t *)to.stack_pointer);
#endif
#ifdef GALLEY_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}
#endif

void arrived(Context &home) {
#ifdef GALLEY_EMULATOR_ASAN
  const void *stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (!home.stack) {
    home.stack = stack;  // the first fiber was entered from the home stack
    home.stack_bytes = bytes;
  }
#endif
  (void)home;
}

void acquire(void *tag) {
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_acquire(tag);
#endif
  (void)tag;
}

void release(void *tag) {
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_release(tag);
#endif
  (void)tag;
}

}  // namespace emulator
