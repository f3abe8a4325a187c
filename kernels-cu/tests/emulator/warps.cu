// Shuffles, votes, reductions and barriers, also with missing threads, against plain computations.
#include "cases.h"

#include <set>

using namespace gk;

namespace {

constexpr unsigned ALL = 0xffffffffu;

template <class T>
__global__ void shuffle_all(T *out, int width) {
  T mine = (T)(noise(threadIdx.x) % 1000), *to = out + threadIdx.x * 4;
  to[0] = __shfl_sync(ALL, mine, threadIdx.x * 7 + 3, width);
  to[1] = __shfl_xor_sync(ALL, mine, 5, width);
  to[2] = __shfl_up_sync(ALL, mine, 3, width);
  to[3] = __shfl_down_sync(ALL, mine, 3, width);
}

template <class T>
void shuffles_of() {
  for (int width : {1, 2, 8, 16, 32}) {
    std::vector<T> out(96 * 4);
    CHECK(GK_LAUNCH(shuffle_all<T>, 1, 96, 0, nullptr, out.data(), width) == 0);
    for (int thread = 0; thread < 96; thread++) {
      const int warp = thread / 32 * 32, lane = thread % 32, first = lane / width * width, last = first + width;
      const int sources[4] = {first + (thread * 7 + 3) % width, (lane ^ 5) < last ? lane ^ 5 : lane,
                              lane - 3 >= first ? lane - 3 : lane, lane + 3 < last ? lane + 3 : lane};
      for (int i = 0; i < 4; i++) CHECK(out[thread * 4 + i] == (T)(noise(warp + sources[i]) % 1000));
    }
  }
}
CASE(shuffles) {
  shuffles_of<int>();
  shuffles_of<float>();
  shuffles_of<double>();
  shuffles_of<unsigned long long>();
}

__global__ void vote_and_reduce(unsigned *out) {
  const unsigned value = noise(threadIdx.x) % 100, mask = threadIdx.x % 32 < 20 ? 0xfffffu : 0xfff00000u;
  unsigned *to = out + threadIdx.x * 12;
  to[0] = __ballot_sync(mask, value & 1);
  to[1] = __any_sync(mask, value > 97);
  to[2] = __all_sync(mask, value < 97);
  to[3] = __match_any_sync(mask, value % 4);
  to[4] = __reduce_add_sync(mask, value);
  to[5] = __reduce_min_sync(mask, value);
  to[6] = __reduce_max_sync(mask, value);
  to[7] = (unsigned)__reduce_min_sync(mask, (int)value - 50);
  to[8] = (unsigned)__reduce_max_sync(mask, (int)value - 50);
  to[9] = __reduce_and_sync(mask, value | 8);
  to[10] = __reduce_or_sync(mask, value);
  to[11] = __reduce_xor_sync(mask, value);
}
CASE(votes_and_reductions) {
  std::vector<unsigned> out(64 * 12);
  CHECK(GK_LAUNCH(vote_and_reduce, 1, 64, 0, nullptr, out.data()) == 0);
  for (int thread = 0; thread < 64; thread++) {
    const bool low = thread % 32 < 20;
    const int first = thread / 32 * 32 + (low ? 0 : 20), end = thread / 32 * 32 + (low ? 20 : 32);
    unsigned want[12] = {0, 0, 1, 0, 0, ~0u, 0, 100, (unsigned)-100, ~0u, 0, 0};
    for (int i = first; i < end; i++) {
      const unsigned value = noise(i) % 100, bit = 1u << (i % 32);
      want[0] |= value & 1 ? bit : 0;
      want[1] |= value > 97;
      want[2] &= value < 97;
      want[3] |= value % 4 == noise(thread) % 100 % 4 ? bit : 0;
      want[4] += value;
      want[5] = std::min(want[5], value);
      want[6] = std::max(want[6], value);
      want[7] = (unsigned)std::min((int)want[7], (int)value - 50);
      want[8] = (unsigned)std::max((int)want[8], (int)value - 50);
      want[9] &= value | 8;
      want[10] |= value;
      want[11] ^= value;
    }
    for (int i = 0; i < 12; i++) CHECK(out[thread * 12 + i] == want[i]);
  }
}

__global__ void count_votes(int *out) {
  const int i = threadIdx.x + blockDim.x * threadIdx.y;
  out[i * 3] = __syncthreads_count(i % 3 == 0);
  out[i * 3 + 1] = __syncthreads_or(i == 77);
  out[i * 3 + 2] = __syncthreads_and(i != 77);
}
CASE(barriers_that_count) {
  std::vector<int> out(100 * 3);
  CHECK(GK_LAUNCH(count_votes, 1, dim3(50, 2), 0, nullptr, out.data()) == 0);
  for (int i = 0; i < 100; i++) CHECK(out[i * 3] == 34 && out[i * 3 + 1] == 1 && out[i * 3 + 2] == 0);
}

// In each round, a thread reads the value that another warp wrote in the last round. Threads end one after the other.
__global__ void rounds_that_lose_threads(int *out, int n_rounds) {
  GK_DYNAMIC_SHARED(memory);
  int *values = reinterpret_cast<int *>(memory);
  const int i = threadIdx.x, n = blockDim.x;
  values[i] = i;
  for (int round = 0; round < n_rounds; round++) {
    __syncthreads();
    const int read = values[(i + 33) % n];
    __syncthreads();
    if (i >= n - round) return;
    values[i] = read + 1;
  }
  out[blockIdx.x * n + i] = values[i];
}
CASE(barriers_after_early_exits) {
  const int n = 150, n_rounds = 20;
  std::vector<int> out(5 * n, -1), values(n), old;
  CHECK(GK_LAUNCH(rounds_that_lose_threads, 5, n, n * 4, nullptr, out.data(), n_rounds) == 0);
  for (int i = 0; i < n; i++) values[i] = i;
  for (int round = 0; round < n_rounds; round++) {
    old = values;
    for (int i = 0; i < n - round; i++) values[i] = old[(i + 33) % n] + 1;
  }
  for (int i = 0; i < 5 * n; i++) CHECK(out[i] == (i % n < n - n_rounds + 1 ? values[i % n] : -1));
}

// The halves of a warp diverge, synchronise within each half, then all together. Some lanes have ended by then.
__global__ void diverge(int *out) {
  const int lane = threadIdx.x % 32;
  if (lane >= 28) return;
  int value = lane;
  if (lane < 12) {
    for (int i = 0; i < 3; i++) value = __shfl_sync(0xfffu, value, (lane + 1) % 12);
    __syncwarp(0xfffu);
  } else {
    for (int i = 0; i < 2; i++) value += __shfl_xor_sync(0xffff000u, lane, 1);
  }
  out[threadIdx.x] = __reduce_add_sync(0xfffffffu, value);
}
CASE(divergence) {
  std::vector<int> out(64, -1);
  CHECK(GK_LAUNCH(diverge, 1, 64, 0, nullptr, out.data()) == 0);
  int want = 0;
  for (int lane = 0; lane < 28; lane++) want += lane < 12 ? (lane + 3) % 12 : lane + 2 * (lane ^ 1);
  for (int i = 0; i < 64; i++) CHECK(out[i] == (i % 32 < 28 ? want : -1));
}

// Dimensions of grid and block; every thread runs once.
__global__ void say_where(unsigned *seen) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(&seen[block * blockDim.x * blockDim.y * blockDim.z + thread], block + 1);
}
CASE(every_thread_once) {
  for (dim3 block : {dim3(1), dim3(3, 5, 7), dim3(1024)}) {
    const unsigned n = block.x * block.y * block.z;
    std::vector<unsigned> seen(2 * 3 * 4 * n);
    CHECK(GK_LAUNCH(say_where, dim3(2, 3, 4), block, 0, nullptr, seen.data()) == 0);
    for (unsigned i = 0; i < seen.size(); i++) CHECK(seen[i] == i / n + 1);
  }
}

CASE(refused_launches) {
  unsigned seen = 0;
  CHECK(GK_LAUNCH(say_where, dim3(0), 1, 0, nullptr, &seen) == emulator::INVALID_CONFIGURATION);
  CHECK(GK_LAUNCH(say_where, 1, dim3(1025), 0, nullptr, &seen) == emulator::INVALID_CONFIGURATION);
  CHECK(GK_LAUNCH(say_where, dim3(1, 65536), 1, 0, nullptr, &seen) == emulator::INVALID_CONFIGURATION);
  CHECK(GK_LAUNCH(say_where, 1, 1, 49153, nullptr, &seen) == emulator::INVALID_VALUE);
  CHECK(GK_ALLOW_SHARED(say_where, 232449) == emulator::INVALID_VALUE);
  CHECK(GK_ALLOW_SHARED(say_where, 60000) == 0);
  CHECK(GK_LAUNCH(say_where, 1, 1, 60001, nullptr, &seen) == emulator::INVALID_VALUE && seen == 0);
  CHECK(GK_LAUNCH(say_where, 1, 1, 60000, nullptr, &seen) == 0 && seen == 1);
}

// ---- errors that must be noticed

__global__ void bad(int which, int *out) {
  const int lane = threadIdx.x;
  switch (which) {
    case 0: *out = lane == 3 ? __shfl_sync(0xf0u, lane, 0) : 0; break;
    case 1: *out = lane < 16 ? __shfl_sync(0xffffu, lane, 20) : 0; break;
    case 2: *out = lane < 16 ? (int)__ballot_sync(ALL, 1) : __shfl_sync(ALL, lane, 0); break;
    case 3: if (lane != 5) __syncwarp(); else __syncthreads(); break;
    case 4:
      if (lane < 16) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case 5: *out = __shfl_sync(ALL, lane, 0, 12); break;
  }
}
void launch_bad(int which) {
  int out = 0;
  (void)GK_LAUNCH(bad, 1, 32, 0, nullptr, which, &out);
}
MUST_DIE(lane_outside_its_mask) { launch_bad(0); }
MUST_DIE(shuffle_from_a_lane_that_is_not_there) { launch_bad(1); }
MUST_DIE(different_collectives) { launch_bad(2); }
MUST_DIE(deadlock) { launch_bad(3); }
MUST_DIE(different_barriers) { launch_bad(4); }
MUST_DIE(odd_width) { launch_bad(5); }

__global__ void write_behind(int n) {
  GK_DYNAMIC_SHARED(memory);
  if (threadIdx.x == 0) memory[n] = 1;
}
MUST_DIE(too_little_shared_memory) { (void)GK_LAUNCH(write_behind, 1, 32, 100, nullptr, 100); }

}  // namespace
