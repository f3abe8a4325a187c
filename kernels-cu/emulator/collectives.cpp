// Computes the collectives of a warp, once all their lanes have arrived. Fragment layouts: PTX ISA, "Warp Level Matrix
// Instructions". The registers of the lanes, side by side, form rows and columns of the matrices.
#include "collectives.h"

namespace emulator {
namespace {

typedef float Row8 __attribute__((vector_size(32), aligned(4)));

void all_lanes(Collective what, uint32_t here) {
  if (here != 0xffffffffu) fail("%s needs all 32 lanes: only the lanes of mask %08x are left", name_of(what), here);
}

void shuffle(uint32_t here, Exchange &warp) {
  if (here == 0xffffffffu) {
    for (int lane = 0; lane < 32; lane++) warp.result[lane] = warp.value[warp.source[lane]];
    return;
  }
  for (uint32_t left = here; left; left &= left - 1) {
    const int lane = __builtin_ctz(left), source = warp.source[lane];
    if (!(here >> source & 1)) {
      fail("shuffle: lane %d reads lane %d, which takes no part (mask %08x)", lane, source, here);
    }
    warp.result[lane] = warp.value[source];
  }
}

uint32_t ballot(uint32_t here, const Exchange &warp) {
  uint32_t votes = 0;
  for (int lane = 0; lane < 32; lane++) votes |= (uint32_t)(warp.value[lane] & 1) << lane;
  return votes & here;
}

void match(uint32_t here, Exchange &warp) {
  for (uint32_t left = here; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    uint32_t same = 0;
    for (int other = 0; other < 32; other++) same |= (uint32_t)(warp.value[other] == warp.value[lane]) << other;
    warp.result[lane] = same & here;
  }
}

template <class F>
uint32_t reduce(uint32_t here, const Exchange &warp, F join) {
  uint32_t value = (uint32_t)warp.value[__builtin_ctz(here)];
  for (uint32_t left = here & (here - 1); left; left &= left - 1) {
    value = join(value, (uint32_t)warp.value[__builtin_ctz(left)]);
  }
  return value;
}

// Register i of lane l holds word l % 4 of row l / 4 of matrix i.
void load(Exchange &warp) {
  for (int matrix = 0; matrix < 4; matrix++) {
    for (int row = 0; row < 8; row++) memcpy(&warp.a[matrix][4 * row], warp.row[8 * matrix + row], 16);
  }
}

// The same for the transposed matrices.
void load_transposed(Exchange &warp) {
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t rows[8][8];
    for (int row = 0; row < 8; row++) memcpy(rows[row], warp.row[8 * matrix + row], 16);
    for (int column = 0; column < 8; column++) {
      uint16_t *to = reinterpret_cast<uint16_t *>(&warp.a[matrix][4 * column]);
      for (int row = 0; row < 8; row++) to[row] = rows[row][column];
    }
  }
}

inline float widen(uint16_t value) { return from_bits<float>((uint64_t)value << 16); }

// d += a b. Every element is summed in the order of k.
__attribute__((always_inline)) inline void multiply_here(Exchange &warp) {
  float a[16][16], b[16][8];
  for (int half = 0; half < 2; half++) {  // halves of k
    for (int row = 0; row < 16; row++) {
      const uint32_t *words = &warp.a[row / 8 + 2 * half][4 * (row % 8)];
      for (int i = 0; i < 4; i++) {
        a[row][8 * half + 2 * i] = from_bits<float>((uint64_t)(words[i] << 16));
        a[row][8 * half + 2 * i + 1] = from_bits<float>((uint64_t)(words[i] & 0xffff0000u));
      }
    }
    for (int column = 0; column < 8; column++) {
      uint16_t ks[8];
      memcpy(ks, &warp.b[half][4 * column], 16);
      for (int k = 0; k < 8; k++) b[8 * half + k][column] = widen(ks[k]);
    }
  }
  for (int half = 0; half < 2; half++) {  // halves of the rows
    for (int row = 0; row < 8; row += 4) {
      Row8 *d = reinterpret_cast<Row8 *>(&warp.d[half][4 * row]), sums[4];
      for (int i = 0; i < 4; i++) sums[i] = d[i];
      for (int k = 0; k < 16; k++) {
        const Row8 column = *reinterpret_cast<const Row8 *>(b[k]);
        for (int i = 0; i < 4; i++) sums[i] += a[8 * half + row + i][k] * column;
      }
      for (int i = 0; i < 4; i++) d[i] = sums[i];
    }
  }
}

// AVX2 is twice as wide and gives the same results: both versions round each product and each sum.
#ifdef __x86_64__
__attribute__((target("avx2"))) void multiply_avx2(Exchange &warp) { multiply_here(warp); }
const bool has_avx2 = __builtin_cpu_supports("avx2");
#endif

void multiply(Exchange &warp) {
#ifdef __x86_64__
  if (has_avx2) return multiply_avx2(warp);
#endif
  multiply_here(warp);
}

// Writes only to the lanes of `here`: other lanes may still have to fetch a result.
void give(uint32_t value, uint32_t here, Exchange &warp) {
  for (uint32_t left = here; left; left &= left - 1) warp.result[__builtin_ctz(left)] = value;
}

}  // namespace

const char *name_of(Collective what) {
  static const char *const names[] = {
      "__syncwarp",        "__shfl_sync",       "__ballot_sync",     "__match_any_sync",  "__reduce_add_sync",
      "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync",
      "__reduce_min_sync", "__reduce_max_sync", "load_matrix_x4",    "load_matrix_x4_transposed", "mma_bf16"};
  return names[(int)what];
}

void compute(Collective what, uint32_t here, Exchange &warp) {
  switch (what) {
    case Collective::Sync: return;
    case Collective::Shuffle: return shuffle(here, warp);
    case Collective::Ballot: return give(ballot(here, warp), here, warp);
    case Collective::Match: return match(here, warp);
    default: break;
  }
  if (what >= Collective::Load) {
    all_lanes(what, here);
    if (what == Collective::Load) return load(warp);
    return what == Collective::LoadTransposed ? load_transposed(warp) : multiply(warp);
  }
  auto join = [&](auto f) { give(reduce(here, warp, f), here, warp); };
  switch (what) {
    case Collective::Add: join([](uint32_t a, uint32_t b) { return a + b; }); break;
    case Collective::Min: join([](uint32_t a, uint32_t b) { return min(a, b); }); break;
    case Collective::Max: join([](uint32_t a, uint32_t b) { return max(a, b); }); break;
    case Collective::And: join([](uint32_t a, uint32_t b) { return a & b; }); break;
    case Collective::Or: join([](uint32_t a, uint32_t b) { return a | b; }); break;
    case Collective::Xor: join([](uint32_t a, uint32_t b) { return a ^ b; }); break;
    case Collective::MinSigned: join([](uint32_t a, uint32_t b) { return (uint32_t)min((int)a, (int)b); }); break;
    default: join([](uint32_t a, uint32_t b) { return (uint32_t)max((int)a, (int)b); }); break;
  }
}

}  // namespace emulator
