#include "emulator.h"
#include <atomic>
#include <cstdarg>
#include <sys/mman.h>
#include <thread>
#include <ucontext.h>
#include <vector>
#ifdef GALLEY_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef GALLEY_EMULATOR_TSAN
extern "C" { void* __tsan_create_fiber(unsigned); void __tsan_destroy_fiber(void*); void __tsan_switch_to_fiber(void*, unsigned); void* __tsan_get_current_fiber(); void __tsan_acquire(void*); void __tsan_release(void*); }
#endif
namespace emulator {
__thread Fiber* cur = nullptr;
__thread BlockCtx blk;

#if defined(GALLEY_EMULATOR_ASAN) || defined(GALLEY_EMULATOR_TSAN)
static constexpr size_t STACK = 256 * 1024;
#else
static constexpr size_t STACK = 64 * 1024;
#endif
static constexpr int MAXT = 1024;

struct Barrier { unsigned need = 0, arrived = 0; uint16_t wait[MAXT]; char tag; };
struct Warp { Coll coll[4]; uint32_t alive; char tag; };
struct Worker {
  Fiber* fibers = nullptr; char* stacks = nullptr; void* main_sp = nullptr; void* main_fake = nullptr; const void* main_bottom = nullptr; size_t main_size = 0; void* main_tsan = nullptr;
  uint16_t queue[MAXT * 2]; unsigned head = 0, tail = 0; unsigned alive = 0, nthreads = 0;
  Warp warps[MAXT / 32]; Barrier bars[16]; Body body = nullptr; const void* arg = nullptr; uint64_t rng = 1; int policy = 0;
};
static __thread Worker* W = nullptr;

#if defined(__x86_64__) && !defined(GALLEY_EMULATOR_UCONTEXT)
extern "C" void galley_emulator_switch(void** save, void* to);
asm(R"(
.text
.globl galley_emulator_switch
.type galley_emulator_switch,@function
galley_emulator_switch:
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
.size galley_emulator_switch,.-galley_emulator_switch
)");
static void* make_ctx(void* stack, size_t size, void (*entry)()) {
  void** s = (void**)((char*)stack + size) - 1; *s = nullptr; *--s = (void*)entry; for (int i = 0; i < 6; i++) *--s = nullptr; return s;
}
#else

static void galley_emulator_switch(void** save, void* to) { if (!*save) *save = malloc(sizeof(ucontext_t)); swapcontext((ucontext_t*)*save, (ucontext_t*)to); }
static void* make_ctx(void* stack, size_t size, void (*entry)()) {
  static thread_local std::vector<ucontext_t> pool(MAXT); static thread_local int n = 0; ucontext_t* u = &pool[n++ % MAXT];
  getcontext(u); u->uc_stack.ss_sp = stack; u->uc_stack.ss_size = size; u->uc_link = nullptr; makecontext(u, entry, 0); return u;
}
#endif

void fail(const char* fmt, ...) {
  va_list ap; va_start(ap, fmt);
  fprintf(stderr, "emulator: block (%u,%u,%u) thread (%u,%u,%u): ", blk.bid.x, blk.bid.y, blk.bid.z, cur ? cur->tid.x : 0, cur ? cur->tid.y : 0, cur ? cur->tid.z : 0);
  vfprintf(stderr, fmt, ap); fputc('\n', stderr); va_end(ap); abort();
}
bool cp_eager() { static const int mode = [] { const char* e = getenv("GALLEY_EMULATOR_CPASYNC"); return e ? atoi(e) : 0; }(); return mode == 1; }
GALLEY_EMULATOR_NOTSAN static uint64_t rnd() { uint64_t x = W->rng; x ^= x << 13; x ^= x >> 7; x ^= x << 17; return W->rng = x; }
GALLEY_EMULATOR_NOTSAN static void push(unsigned f) {
  Worker& w = *W;
  w.queue[w.tail++ % (MAXT * 2)] = (uint16_t)f;
  if (w.policy == 2) { unsigned n = w.tail - w.head, i = w.head + (unsigned)(rnd() % n); std::swap(w.queue[i % (MAXT * 2)], w.queue[(w.tail - 1) % (MAXT * 2)]); }
}
GALLEY_EMULATOR_NOTSAN static int pop() { Worker& w = *W; if (w.head == w.tail) return -1; return w.policy == 1 ? w.queue[--w.tail % (MAXT * 2)] : w.queue[w.head++ % (MAXT * 2)]; }

GALLEY_EMULATOR_NOTSAN static void switch_to(Fiber* from, Fiber* to, bool dying) {  // nullptr: the worker's own stack
  cur = to;
#ifdef GALLEY_EMULATOR_ASAN
  void** fake = from ? &from->asan_fake : &W->main_fake;
  __sanitizer_start_switch_fiber(dying ? nullptr : fake, to ? to->stack : W->main_bottom, to ? STACK : W->main_size);
#endif
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_switch_to_fiber(to ? to->tsan : W->main_tsan, from && to ? 1 : 0);      // between CUDA threads: no happens-before edge
#endif
  (void)dying;
  galley_emulator_switch(from ? &from->sp : &W->main_sp, to ? to->sp : W->main_sp);
#ifdef GALLEY_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from ? from->asan_fake : W->main_fake, nullptr, nullptr);
#endif
}
[[noreturn]] static void deadlock() {
  fprintf(stderr, "emulator: deadlock in block (%u,%u,%u)\n", blk.bid.x, blk.bid.y, blk.bid.z);
  for (unsigned i = 0, shown = 0; i < W->nthreads && shown < 8; i++) if (!W->fibers[i].done) { fprintf(stderr, "  thread %u waits at %s\n", i, W->fibers[i].waiting ? W->fibers[i].waiting : "?"); shown++; }
  abort();
}
GALLEY_EMULATOR_NOTSAN static void block_here(const char* why) {
  Fiber* me = cur; me->waiting = why; int n = pop(); if (n < 0) deadlock();
  switch_to(me, &W->fibers[n], false); me->waiting = nullptr;
}
GALLEY_EMULATOR_NOTSAN static void complete(Warp& w, unsigned warp, Coll& c) {
  c.fn(c);
  for (uint32_t m = c.arrived; m; m &= m - 1) { unsigned f = warp * 32 + __builtin_ctz(m); if (&W->fibers[f] != cur) push(f); }
  c.arrived = 0; c.mask = 0; (void)w;
}
GALLEY_EMULATOR_NOTSAN void collective(uint32_t mask, int op, const Lane& in, void (*fn)(Coll&)) {
  Fiber* me = cur; Warp& w = W->warps[me->warp];
  if (!(mask >> me->lane & 1)) fail("warp collective: calling lane %d is not in its mask %08x", me->lane, mask);
  Coll* c = nullptr; for (auto& k : w.coll) if (k.arrived && k.mask == mask) { c = &k; break; }
  if (!c) {
    for (auto& k : w.coll) if (!k.arrived) { c = &k; break; }
    if (!c) fail("more than 4 warp collectives in flight in one warp");
    c->mask = mask; c->op = op; c->fn = fn;
  }
  if (c->op != op) fail("lanes of one warp meet in different collectives (op %d and %d, mask %08x)", c->op, op, mask);
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_release(&w.tag);
#endif
  c->lane[me->lane] = in; c->arrived |= 1u << me->lane;
  if (c->arrived == (mask & w.alive)) complete(w, me->warp, *c); else block_here("warp collective");
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_acquire(&w.tag);
#endif
}
GALLEY_EMULATOR_NOTSAN static void release(Barrier& b) { for (unsigned i = 0; i < b.arrived; i++) if (&W->fibers[b.wait[i]] != cur) push(b.wait[i]); b.arrived = 0; }
GALLEY_EMULATOR_NOTSAN void barrier(int id, unsigned count) {
  Worker& w = *W; Barrier& b = w.bars[id]; b.need = count;
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_release(&b.tag);
#endif
  b.wait[b.arrived++] = (uint16_t)cur->linear;
  if (b.arrived == (count ? count : w.alive)) release(b); else block_here("__syncthreads / bar.sync");
#ifdef GALLEY_EMULATOR_TSAN
  __tsan_acquire(&b.tag);
#endif
}
static void entry() {
  Fiber* me = cur;
#ifdef GALLEY_EMULATOR_ASAN
  { const void* b; size_t s; __sanitizer_finish_switch_fiber(nullptr, &b, &s); if (!W->main_bottom) { W->main_bottom = b; W->main_size = s; } }
#endif
  W->body(W->arg);
  if (me->ngroups || me->ncp) { /* cp.async left in flight at exit is legal but useless */ }
  me->done = 1; Worker& w = *W; Warp& wp = w.warps[me->warp]; w.alive--; wp.alive &= ~(1u << me->lane);
  for (auto& c : wp.coll) if (c.arrived && c.arrived == (c.mask & wp.alive)) complete(wp, me->warp, c);
  if (w.alive && w.bars[0].arrived == w.alive && w.bars[0].need == 0) release(w.bars[0]);
  int n = pop(); if (n < 0 && w.alive) deadlock();
  switch_to(me, n < 0 ? nullptr : &w.fibers[n], true); __builtin_unreachable();
}
static Worker* worker() {
  static thread_local Worker* w = nullptr;
  if (!w) { w = new Worker; w->fibers = (Fiber*)calloc(MAXT, sizeof(Fiber)); for (int i = 0; i < MAXT; i++) w->fibers[i].cp = (AsyncCopy*)malloc(sizeof(AsyncCopy) * MAX_CP);
    w->stacks = (char*)mmap(nullptr, STACK * MAXT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w->stacks == MAP_FAILED) { perror("emulator mmap"); abort(); } }
  return w;
}
static void run_block(unsigned n) {
  Worker& w = *W; w.head = w.tail = 0; w.alive = w.nthreads = n; for (auto& b : w.bars) b.arrived = 0;
  unsigned nw = (n + 31) / 32;
  for (unsigned i = 0; i < nw; i++) { w.warps[i].alive = (i + 1) * 32 <= n ? ~0u : (1u << (n & 31)) - 1; for (auto& c : w.warps[i].coll) c.arrived = 0; }
  for (unsigned i = 0; i < n; i++) { Fiber& f = w.fibers[i]; f.stack = w.stacks + STACK * i; f.done = 0; f.waiting = nullptr; f.asan_fake = nullptr; f.ncp = f.ngroups = 0;
    f.linear = i; f.lane = i & 31; f.warp = i >> 5; f.tid = {i % blk.bdim.x, i / blk.bdim.x % blk.bdim.y, i / (blk.bdim.x * blk.bdim.y)};
#ifdef GALLEY_EMULATOR_ASAN
    __asan_unpoison_memory_region(f.stack, STACK);
#endif
#ifdef GALLEY_EMULATOR_TSAN
    f.tsan = __tsan_create_fiber(0);
#endif
    f.sp = make_ctx(f.stack, STACK - (i * 5 % 61) * 192, entry); push(i); }   // staggered: equal offsets would share cache sets
#ifdef GALLEY_EMULATOR_TSAN
  w.main_tsan = __tsan_get_current_fiber();
  for (unsigned i = 0; i < n; i++) { __tsan_switch_to_fiber(w.fibers[i].tsan, 0); __tsan_switch_to_fiber(w.main_tsan, 0); }   // launch happens before every thread
#endif
  switch_to(nullptr, &w.fibers[pop()], false); cur = nullptr;
#ifdef GALLEY_EMULATOR_TSAN
  for (unsigned i = 0; i < n; i++) { __tsan_switch_to_fiber(w.fibers[i].tsan, 0); __tsan_switch_to_fiber(w.main_tsan, 0); __tsan_destroy_fiber(w.fibers[i].tsan); }
#endif
}
void run_grid(dim3 grid, dim3 block, size_t smem, Body body, const void* arg) {
  unsigned n = block.x * block.y * block.z; if (!n || n > MAXT) { fprintf(stderr, "emulator: bad block size %u\n", n); abort(); }
  static const int threads = [] { const char* e = getenv("GALLEY_EMULATOR_THREADS"); return e ? atoi(e) : 1; }();
  static const int policy = [] { const char* e = getenv("GALLEY_EMULATOR_SCHED"); return e ? atoi(e) : 0; }();                    // 0 fifo, 1 lifo, 2 random
  static const uint64_t seed = [] { const char* e = getenv("GALLEY_EMULATOR_SEED"); return e ? strtoull(e, nullptr, 0) * 2654435761u + 1 : 88172645463325252ull; }();
  uint64_t total = (uint64_t)grid.x * grid.y * grid.z; std::atomic<uint64_t> next{0};
  auto work = [&] {
    W = worker(); W->body = body; W->arg = arg; W->policy = policy; W->rng = seed;
    void* sm = nullptr; if (smem && posix_memalign(&sm, 128, smem)) abort();                                         // exact size: ASan sees overruns
    for (uint64_t b; (b = next.fetch_add(1)) < total;) {
      blk = {{(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / ((uint64_t)grid.x * grid.y))}, {block.x, block.y, block.z}, {grid.x, grid.y, grid.z}, (unsigned char*)sm, smem};
      if (sm) memset(sm, 0xff, smem);                                                                                // NaN in fp32 and bf16
      run_block(n);
    }
    free(sm);
  };
  int extra = (int)std::min<uint64_t>(threads, total) - 1; std::vector<std::thread> ts; for (int i = 0; i < extra; i++) ts.emplace_back(work);
  work(); for (auto& t : ts) t.join();
}
// ---- what the collectives do; run once, by the last lane that arrives; the others' frames are alive and suspended
GALLEY_EMULATOR_NOTSAN void fn_sync(Coll&) {}
GALLEY_EMULATOR_NOTSAN void fn_shfl(Coll& c) {
  for (uint32_t m = c.arrived; m; m &= m - 1) { Lane& l = c.lane[__builtin_ctz(m)]; if (!(c.arrived >> l.arg & 1)) fail("shuffle reads lane %d, which takes no part (mask %08x)", l.arg, c.mask);
    *(uint64_t*)l.out = c.lane[l.arg].v; } }
GALLEY_EMULATOR_NOTSAN void fn_ballot(Coll& c) {
  uint32_t r = 0; for (uint32_t m = c.arrived; m; m &= m - 1) { int i = __builtin_ctz(m); r |= (uint32_t)(c.lane[i].v & 1) << i; }
  for (uint32_t m = c.arrived; m; m &= m - 1) *(uint64_t*)c.lane[__builtin_ctz(m)].out = r; }
static GALLEY_EMULATOR_NOTSAN void need_full(Coll& c, const char* what) { if (c.arrived != ~0u) fail("%s needs all 32 lanes (have %08x)", what, c.arrived); }
GALLEY_EMULATOR_NOTSAN void fn_ldm(Coll& c) {
  need_full(c, "ldmatrix");
  for (int i = 0; i < 32; i++) if ((uintptr_t)c.lane[i].in[0] & 15) fail("ldmatrix: row address of lane %d not 16-byte aligned", i);
  for (int mi = 0; mi < 4; mi++) for (int l = 0; l < 32; l++) ((uint32_t*)c.lane[l].out)[mi] = ((const uint32_t*)c.lane[mi * 8 + l / 4].in[0])[l % 4]; }
GALLEY_EMULATOR_NOTSAN void fn_ldmt(Coll& c) {
  need_full(c, "ldmatrix.trans");
  for (int i = 0; i < 32; i++) if ((uintptr_t)c.lane[i].in[0] & 15) fail("ldmatrix: row address of lane %d not 16-byte aligned", i);
  for (int mi = 0; mi < 4; mi++) for (int l = 0; l < 32; l++) { int r0 = (l % 4) * 2, col = l / 4;
    uint32_t lo = ((const uint16_t*)c.lane[mi * 8 + r0].in[0])[col], hi = ((const uint16_t*)c.lane[mi * 8 + r0 + 1].in[0])[col]; ((uint32_t*)c.lane[l].out)[mi] = lo | hi << 16; } }
static inline float bfl(uint32_t v) { return unbits<float>((uint32_t)(v << 16)); }
static inline float bfh(uint32_t v) { return unbits<float>((uint32_t)(v & 0xffff0000u)); }
GALLEY_EMULATOR_NOTSAN void fn_mma_bf16(Coll& c) {
  need_full(c, "mma.sync"); alignas(32) float A[16][16], B[16][8], D[16][8];
  for (int l = 0; l < 32; l++) { int g = l / 4, t = l % 4; const uint32_t* a = (const uint32_t*)c.lane[l].in[0]; const uint32_t* b = (const uint32_t*)c.lane[l].in[1]; const float* d = (const float*)c.lane[l].out;
    A[g][t * 2] = bfl(a[0]); A[g][t * 2 + 1] = bfh(a[0]); A[g + 8][t * 2] = bfl(a[1]); A[g + 8][t * 2 + 1] = bfh(a[1]);
    A[g][t * 2 + 8] = bfl(a[2]); A[g][t * 2 + 9] = bfh(a[2]); A[g + 8][t * 2 + 8] = bfl(a[3]); A[g + 8][t * 2 + 9] = bfh(a[3]);
    B[t * 2][g] = bfl(b[0]); B[t * 2 + 1][g] = bfh(b[0]); B[t * 2 + 8][g] = bfl(b[1]); B[t * 2 + 9][g] = bfh(b[1]);
    D[g][t * 2] = d[0]; D[g][t * 2 + 1] = d[1]; D[g + 8][t * 2] = d[2]; D[g + 8][t * 2 + 1] = d[3]; }
  for (int i = 0; i < 16; i++) for (int k = 0; k < 16; k++) for (int j = 0; j < 8; j++) D[i][j] += A[i][k] * B[k][j];
  for (int l = 0; l < 32; l++) { int g = l / 4, t = l % 4; float* d = (float*)c.lane[l].out; d[0] = D[g][t * 2]; d[1] = D[g][t * 2 + 1]; d[2] = D[g + 8][t * 2]; d[3] = D[g + 8][t * 2 + 1]; } }
}  // namespace emulator
