// Runs the threads of a block in turns: the schedule, the waits, and the detection of deadlocks.
#include "blocks.h"

#include "collectives.h"
#include "complaints.h"
#include "copies.h"
#include "settings.h"
#include "worker.h"

namespace emulator {

__thread Thread *current = nullptr;
__thread Block block_here;

namespace {

constexpr size_t CANARY_BYTES = 64;  // after dynamic shared memory
constexpr unsigned char CANARY = 0xa5;

__thread Worker *worker __attribute__((tls_model("initial-exec"))) = nullptr;

uint32_t draw(Worker &w, uint32_t below) {  // splitmix64
  uint64_t z = w.random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (uint32_t)((z >> 32) * below >> 32);
}

int random_bit(Worker &w, uint32_t mask) {
  for (uint32_t skip = draw(w, (uint32_t)__builtin_popcount(mask)); skip; skip--) mask &= mask - 1;
  return __builtin_ctz(mask);
}

void make_ready(Worker &w, WarpState &warp, uint32_t lanes) {
  if (!lanes) return;
  warp.ready |= lanes;
  w.ready_warps |= 1u << warp.number;
}

// Takes a thread that is ready, or returns null. A warp keeps its turn while it has one: its stacks are in the cache.
Fiber *next(Worker &w, const WarpState *last) {
  if (!w.ready_warps) return nullptr;
  unsigned number;
  int lane;
  if (w.schedule == Schedule::Random) {
    number = (unsigned)random_bit(w, w.ready_warps);
    lane = random_bit(w, w.warps[number].ready);
  } else {
    const bool lifo = w.schedule == Schedule::Lifo;
    number = last && last->ready ? last->number
                                 : (unsigned)(lifo ? 31 - __builtin_clz(w.ready_warps) : __builtin_ctz(w.ready_warps));
    lane = lifo ? 31 - __builtin_clz(w.warps[number].ready) : __builtin_ctz(w.warps[number].ready);
  }
  WarpState &warp = w.warps[number];
  warp.ready &= ~(1u << lane);
  if (!warp.ready) w.ready_warps &= ~(1u << number);
  return &w.fibers[number][lane];
}

void go_to(Fiber *from, Fiber *to) {
  current = to;
  change(from->context, to->context);
}

// Runs other threads until one of them makes this thread ready.
void wait(Worker &w, Fiber &me, const char *what, const char *file, int line, uint32_t mask) {
  me.waits_for = what;
  me.file = file;
  me.line = line;
  me.mask = mask;
  Fiber *to = next(w, me.warp);
  if (!to) deadlock(w);
  if (to != &me) go_to(&me, to);
}

// The last thread to arrive continues at once. The random schedule may choose another thread first.
void perhaps_wait(Worker &w, Fiber &me) {
  if (w.schedule != Schedule::Random) return;
  make_ready(w, *me.warp, 1u << me.lane);
  wait(w, me, "nothing", "", 0, 0);
}

// Returns the meeting that lanes have opened for the mask, or opens one.
Meeting &meeting_for(WarpState &warp, uint32_t mask, Collective what, const char *file, int line) {
  Meeting *free_one = nullptr;
  for (Meeting &meeting : warp.meetings) {
    if (meeting.arrived && meeting.mask == mask) return meeting;
    if (!meeting.arrived && !free_one) free_one = &meeting;
  }
  if (!free_one) fail("more than %d groups of lanes of a warp meet at a time", MAX_MEETINGS);
  free_one->mask = mask;
  free_one->what = what;
  free_one->file = file;
  free_one->line = line;
  return *free_one;
}

void complete(Meeting &meeting, WarpState &warp) {
  compute(meeting.what, meeting.arrived, warp.exchange);
  meeting.arrived = 0;
  meeting.n_past++;
}

void open_barrier(Worker &w, const Fiber *last) {
  w.votes = {w.n_votes, w.n_at_barrier};
  w.n_votes = w.n_at_barrier = 0;
  w.n_barriers++;
  for (unsigned i = 0; i < (w.n_threads + 31) / 32; i++) {
    WarpState &warp = w.warps[i];
    if (last && last->warp == &warp) warp.at_barrier &= ~(1u << last->lane);
    make_ready(w, warp, warp.at_barrier);
    warp.at_barrier = 0;
  }
}

// Called when a thread has returned from the kernel. Returns when the next block needs the thread.
void leave(Worker &w, Fiber &me) {
  release(&w.end_tag);
  WarpState &warp = *me.warp;
  w.n_alive--;
  warp.alive &= ~(1u << me.lane);
  for (Meeting &meeting : warp.meetings) {
    const uint32_t arrived = meeting.arrived;
    if (!arrived || arrived != (meeting.mask & warp.alive)) continue;
    complete(meeting, warp);
    make_ready(w, warp, arrived);
  }
  if (w.n_alive && w.n_at_barrier == w.n_alive) open_barrier(w, nullptr);
  Fiber *to = next(w, &warp);
  if (to) return go_to(&me, to);
  if (w.n_alive) deadlock(w);
  current = nullptr;
  change(me.context, w.home);
}

void entry() {
  arrived(worker->home);
  for (;;) {
    Worker &w = *worker;
    Fiber &me = *static_cast<Fiber *>(current);
    acquire(&w.start_tag);
    if (me.copies) me.copies->n = me.copies->n_groups = 0;
    w.body(w.argument);
    leave(w, me);
  }
}

void make_fibers(Worker &w, unsigned n_threads) {
  while (w.fibers.size() * 32 < n_threads) {
    const unsigned number = (unsigned)w.fibers.size();
    w.stacks.push_back(map_stacks(32));
    w.fibers.emplace_back(new Fiber[32]());
    w.warps[number].number = number;
    for (unsigned lane = 0; lane < 32; lane++) {
      Fiber &fiber = w.fibers[number][lane];
      prepare(fiber.context, w.stacks[number] + lane * STACK_BYTES, number * 32 + lane, entry);
      fiber.lane = lane;
      fiber.warp = &w.warps[number];
      fiber.exchange = &fiber.warp->exchange;
      fiber.linear = number * 32 + lane;
    }
    w.shape = dim3(0, 0, 0);
  }
}

// Allocates exactly this size under AddressSanitizer, otherwise with a canary after it.
void make_shared(Worker &w, size_t bytes) {
#ifdef GALLEY_EMULATOR_ASAN
  const size_t room = bytes;
  const bool fits = w.shared_room == room;
#else
  const size_t room = bytes + CANARY_BYTES;
  const bool fits = w.shared_room >= room;
#endif
  w.shared_bytes = bytes;
  if (fits || !bytes) return;
  free(w.shared);
  void *memory = nullptr;
  if (posix_memalign(&memory, 128, room)) {
    fprintf(stderr, "emulator: no memory for %zu bytes of shared memory\n", bytes);
    abort();
  }
  w.shared = static_cast<unsigned char *>(memory);
  w.shared_room = room;
}

void check_canary(const Worker &w) {
#ifndef GALLEY_EMULATOR_ASAN
  for (size_t i = 0; w.shared_bytes && i < CANARY_BYTES; i++) {
    if (w.shared[w.shared_bytes + i] == CANARY) continue;
    fail("wrote %zu bytes behind its %zu bytes of dynamic shared memory: ask for more at the launch", i,
         w.shared_bytes);
  }
#endif
  (void)w;
}

}  // namespace

void meet(Collective what, uint32_t mask, const char *file, int line) {
  Worker &w = *worker;
  Fiber &me = *static_cast<Fiber *>(current);
  WarpState &warp = *me.warp;
  const uint32_t bit = 1u << me.lane;
  if (!(mask & bit)) {
    fail("%s:%d: %s: lane %u calls it and is not in its mask %08x", file, line, name_of(what), me.lane, mask);
  }
  Meeting *found = &warp.meetings[0];
  if (!found->arrived || found->mask != mask) found = &meeting_for(warp, mask, what, file, line);
  Meeting &meeting = *found;
  if (meeting.what != what) {
    fail("%s:%d: lanes of a warp meet in different collectives: %s here, %s of %s:%d (mask %08x)", file, line,
         name_of(what), name_of(meeting.what), meeting.file, meeting.line, mask);
  }
  // Only __syncwarp orders memory; other collectives just exchange values.
  char *const tag = what == Collective::Sync ? &meeting.tags[meeting.n_past & 1] : nullptr;
  if (tag) release(tag);
  meeting.arrived |= bit;
  if (meeting.arrived == (mask & warp.alive)) {
    const uint32_t others = meeting.arrived & ~bit;
    complete(meeting, warp);
    make_ready(w, warp, others);
    perhaps_wait(w, me);
  } else {
    wait(w, me, name_of(what), file, line, mask);
  }
  if (tag) acquire(tag);
}

Votes barrier(bool vote, const char *file, int line) {
  Worker &w = *worker;
  Fiber &me = *static_cast<Fiber *>(current);
  if (!w.n_at_barrier) {
    w.barrier_file = file;
    w.barrier_line = line;
  } else if (w.barrier_line != line) {
    fail("%s:%d: threads of a block meet in different barriers: here, and at %s:%d", file, line, w.barrier_file,
         w.barrier_line);
  }
  char *const tag = &w.barrier_tags[w.n_barriers & 1];
  release(tag);
  w.n_votes += vote;
  w.n_at_barrier++;
  if (w.n_at_barrier == w.n_alive) {
    open_barrier(w, &me);
    perhaps_wait(w, me);
  } else {
    me.warp->at_barrier |= 1u << me.lane;
    wait(w, me, "__syncthreads", file, line, 0);
  }
  acquire(tag);
  return w.votes;
}

void fence() {
  static char tag;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
#if defined(__x86_64__)
  __builtin_ia32_mfence();
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
  acquire(&tag);
  release(&tag);
}

AsyncCopies &new_copies() {
  Fiber &me = *static_cast<Fiber *>(current);
  me.memory_of_copies.reset(new AsyncCopies);
  me.copies = me.memory_of_copies.get();
  me.copies->n = me.copies->n_groups = 0;
  return *me.copies;
}

void begin_blocks(const Blocks &blocks) {
  static thread_local std::unique_ptr<Worker> mine;
  if (!mine) {
    mine.reset(new Worker);
    watch_stacks();
  }
  worker = mine.get();
  Worker &w = *worker;
  adopt_this_thread(w.home);
  const dim3 &shape = blocks.grid.block;
  w.n_threads = shape.x * shape.y * shape.z;
  make_fibers(w, w.n_threads);
  if (w.shape.x != shape.x || w.shape.y != shape.y || w.shape.z != shape.z) {
    for (unsigned i = 0; i < w.fibers.size() * 32; i++) {
      w.fiber(i).index = {i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
    }
    w.shape = shape;
  }
  make_shared(w, blocks.grid.shared_bytes);
  w.schedule = settings().schedule;
  w.body = blocks.body;
  w.argument = blocks.argument;
  const dim3 &n_blocks = blocks.grid.n_blocks;
  block_here.size = {shape.x, shape.y, shape.z};
  block_here.grid = {n_blocks.x, n_blocks.y, n_blocks.z};
  block_here.shared = w.shared_bytes ? w.shared : nullptr;
  block_here.shared_bytes = w.shared_bytes;
  block_here.early_copies = settings().early_copies;
}

void run_block(const Blocks &blocks, uint64_t which) {
  Worker &w = *worker;
  const dim3 &grid = blocks.grid.n_blocks;
  block_here.index = {(unsigned)(which % grid.x), (unsigned)(which / grid.x % grid.y),
                      (unsigned)(which / ((uint64_t)grid.x * grid.y))};
  w.random = settings().seed * 0x2545f4914f6cdd1du + which;
  w.n_alive = w.n_threads;
  w.ready_warps = 0;
  for (unsigned i = 0; i < (w.n_threads + 31) / 32; i++) {
    const unsigned n_left = w.n_threads - 32 * i;
    w.warps[i].alive = n_left >= 32 ? 0xffffffffu : (1u << n_left) - 1;
    make_ready(w, w.warps[i], w.warps[i].alive);
  }
  if (w.shared_bytes) {
    memset(w.shared, 0xff, w.shared_bytes);  // NaN in f32 and bf16
#ifndef GALLEY_EMULATOR_ASAN
    memset(w.shared + w.shared_bytes, CANARY, CANARY_BYTES);
#endif
  }
  release(&w.start_tag);
  Fiber *first = next(w, nullptr);
  current = first;
  change(w.home, first->context);
  acquire(&w.end_tag);
  check_canary(w);
}

}  // namespace emulator
