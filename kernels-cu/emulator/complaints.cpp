// Ends the process with a message that says where and why.
#include "complaints.h"

#include "blocks.h"

#include <csignal>
#include <cstdarg>
#include <unistd.h>

namespace emulator {
namespace {

void describe(const Worker &w, const Fiber &fiber) {
  fprintf(stderr, "waits at %s of %s:%d", fiber.waits_for, fiber.file, fiber.line);
  if (!fiber.mask) return;
  const WarpState &warp = *fiber.warp;
  for (const Meeting &meeting : warp.meetings) {
    if (meeting.arrived >> fiber.lane & 1) {
      fprintf(stderr, " (mask %08x, missing lanes %08x)", meeting.mask, meeting.mask & warp.alive & ~meeting.arrived);
    }
  }
  (void)w;
}

}  // namespace

void deadlock(Worker &w) {
  fprintf(stderr, "emulator: block (%u,%u,%u): deadlock, every thread waits for another:\n", block_here.index.x,
          block_here.index.y, block_here.index.z);
  auto alive = [&](unsigned i) { return w.warps[i / 32].alive >> (i % 32) & 1; };
  auto same = [&](const Fiber &a, const Fiber &b) {
    return a.waits_for == b.waits_for && a.line == b.line && a.mask == b.mask && a.warp == b.warp;
  };
  for (unsigned first = 0, end; first < w.n_threads; first = end) {
    for (end = first + 1; end < w.n_threads && alive(end) == alive(first); end++) {
      if (alive(first) && !same(w.fiber(first), w.fiber(end))) break;
    }
    fprintf(stderr, end - first > 1 ? "  threads %u to %u: " : "  thread %u: ", first, end - 1);
    if (alive(first)) {
      describe(w, w.fiber(first));
    } else {
      fprintf(stderr, "have ended");
    }
    fputc('\n', stderr);
  }
  abort();
}

void fail(const char *format, ...) {
  const uint3 block = block_here.index, thread = current ? current->index : uint3{0, 0, 0};
  fprintf(stderr, "emulator: block (%u,%u,%u) thread (%u,%u,%u): ", block.x, block.y, block.z, thread.x, thread.y,
          thread.z);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  abort();
}

#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN)
void watch_stacks() {}
#else
static struct sigaction action_before;

// A signal handler must not print in general. Here the interrupted thread was in a kernel, which holds no lock.
static void on_fault(int, siginfo_t *fault, void *) {
  if (current) {
    const char *const stack = (const char *)static_cast<Fiber *>(current)->context.stack;
    const char *const at = (const char *)fault->si_addr;
    if (at < stack && stack - at <= getpagesize()) {
      fail("its local variables need more than the %zu KiB of a stack (STACK_BYTES of fibers.h)", STACK_BYTES / 1024);
    }
  }
  sigaction(SIGSEGV, &action_before, nullptr);  // the access repeats, and the previous handler gets the signal
}

void watch_stacks() {
  stack_t own = {};
  sigaltstack(nullptr, &own);
  if (own.ss_flags & SS_DISABLE) {  // the handler cannot run on a stack that has overflowed
    constexpr size_t bytes = 64 * 1024;
    static thread_local std::unique_ptr<char[]> memory;
    memory.reset(new char[bytes]);
    own = {};
    own.ss_sp = memory.get();
    own.ss_size = bytes;
    sigaltstack(&own, nullptr);
  }
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return sigaction(SIGSEGV, &action, &action_before) == 0;
  }();
  (void)installed;
}
#endif

}  // namespace emulator
