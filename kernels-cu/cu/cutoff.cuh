// Finds the token at which a running count or weight, over tokens in their order, reaches a limit. Top-k, top-p and the
// most likely tokens use it.
//
// The result is exact and takes few passes over the row. A histogram over the distance to the top, with bins in the
// order of tokens, gives the bin of that token. The bin nearly always holds few tokens, which are gathered and compared
// pairwise. If it holds many (flat rows, ties), a radix select continues over the bits of their keys: value, then id.
#pragma once

#include "block.cuh"
#include "order.cuh"
#include "tuning.h"

namespace gk {

static constexpr int N_BINS = 2048;  // 11 bits of a key
static constexpr float BINS_PER_UNIT = 64.0f;  // bins reach a distance of 32; weights are 0 from 29 on

struct SelectMemory {
  uint64_t list[SELECT_LIST];
  uint64_t scratch[MAX_WARPS];
  uint64_t found_before;
  uint64_t found_inside;
  uint64_t found_key;
  uint32_t found_bin;
  uint32_t n_listed;
  // 64-bit sums in halves: shared memory adds 32 bits natively, and 64 bits only by compare and swap.
  uint32_t low[N_BINS];
  uint32_t high[N_BINS];
};

// A row of logits and the values that scale it.
struct RowView {
  const float *logits;
  int n;
  float factor; /* 1 / temperature */
  float top;    /* the largest value */
};

// Calls `act(logits, first_token)` for four tokens at a time. All threads of a block make the same number of calls;
// tokens beyond the row have -inf. A thread has UNROLL loads of 16 bytes in flight.
template <int UNROLL, class F>
GK_DEVICE void for_each_quad(const float *row, int n, F act) {
  bool is_aligned = ((uintptr_t)row & 15) == 0;
  int n_quads = ceil_div(n, 4);
  for (int base = 0; base < n_quads; base += UNROLL * blockDim.x) {
    float4 loaded[UNROLL];
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      int first = (base + i * (int)blockDim.x + (int)threadIdx.x) * 4;
      if (is_aligned && first + 4 <= n) {
        loaded[i] = *reinterpret_cast<const float4 *>(row + first);
      } else {
        float none = minus_infinity();
        loaded[i].x = first + 0 < n ? row[first + 0] : none;
        loaded[i].y = first + 1 < n ? row[first + 1] : none;
        loaded[i].z = first + 2 < n ? row[first + 2] : none;
        loaded[i].w = first + 3 < n ? row[first + 3] : none;
      }
    }
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      float quad[4] = {loaded[i].x, loaded[i].y, loaded[i].z, loaded[i].w};
      act(quad, (base + i * (int)blockDim.x + (int)threadIdx.x) * 4);
    }
  }
}

// Calls `act(key)` for the tokens with `after < key <= until`.
template <class F>
GK_DEVICE void for_each_key(const RowView &row, uint64_t after, uint64_t until, F act) {
  for_each_quad<4>(row.logits, row.n, [&](const float(&logits)[4], int first) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint64_t key = key_of(tempered(logits[i], row.factor), (uint32_t)(first + i));
      if (key > after && key <= until) act(key);
    }
  });
}

GK_DEVICE uint32_t bin_of(const RowView &row, uint64_t key) {
  float distance = (row.top - value_of(key)) * BINS_PER_UNIT;
  return distance < (float)(N_BINS - 1) ? (uint32_t)distance : N_BINS - 1;
}

GK_DEVICE void clear_bins(SelectMemory &memory) {
  __syncthreads();
  for (int bin = threadIdx.x; bin < N_BINS; bin += blockDim.x) memory.low[bin] = memory.high[bin] = 0;
  __syncthreads();
}

GK_DEVICE void add_to_bin(SelectMemory &memory, uint32_t bin, uint64_t amount) {
  if (amount == 0) return;
  uint32_t low = (uint32_t)amount;
  uint32_t old = atomicAdd(&memory.low[bin], low);
  uint32_t high = (uint32_t)(amount >> 32) + (old + low < old ? 1u : 0u);
  if (high != 0) atomicAdd(&memory.high[bin], high);
}

// Finds the bin at which the sum over bins reaches `needed(total)`: in memory.found_*. False if the total is too small.
template <class F>
GK_DEVICE bool find_bin(SelectMemory &memory, F needed, uint64_t &need) {
  __syncthreads();
  int per_thread = ceil_div(N_BINS, (int)blockDim.x);
  int first = (int)threadIdx.x * per_thread;
  auto at = [&](int bin) { return (uint64_t)memory.high[bin] << 32 | memory.low[bin]; };
  uint64_t sum = 0;
  for (int bin = first; bin < first + per_thread && bin < N_BINS; bin++) sum += at(bin);
  uint64_t total;
  uint64_t before = block_sum_before(sum, memory.scratch, total);
  need = needed(total);
  if (before < need && need <= before + sum) {
    int bin = first;
    while (before + at(bin) < need) before += at(bin++);
    memory.found_bin = (uint32_t)bin;
    memory.found_before = before;
    memory.found_inside = at(bin);
  }
  __syncthreads();
  return total >= need;
}

// The key at which the sum of `amount(key)`, over the tokens with `after < key <= until` in their order, reaches
// `needed(sum of all)`, which is at least 1; `until` if the sum stays below. Tokens of equal value have equal amounts.
template <class Amount, class Needed>
GK_DEVICE uint64_t select(SelectMemory &memory, const RowView &row, uint64_t after, uint64_t until, Amount amount,
                          Needed needed) {
  clear_bins(memory);
  for_each_key(row, after, until, [&](uint64_t key) { add_to_bin(memory, bin_of(row, key), amount(key)); });
  uint64_t need;
  if (!find_bin(memory, needed, need)) return until;
  uint32_t bin = memory.found_bin;
  need -= memory.found_before;
  if (threadIdx.x == 0) memory.n_listed = 0;
  __syncthreads();
  for_each_key(row, after, until, [&](uint64_t key) {
    if (bin_of(row, key) == bin) {
      uint32_t at = atomicAdd(&memory.n_listed, 1u);
      if (at < SELECT_LIST) memory.list[at] = key;
    }
  });
  __syncthreads();
  uint32_t n_listed = memory.n_listed;
  if (n_listed <= SELECT_PAIRS) {
    for (uint32_t i = threadIdx.x; i < n_listed; i += blockDim.x) {
      uint64_t mine = memory.list[i], before = 0;
      for (uint32_t j = 0; j < n_listed; j++) {
        if (memory.list[j] < mine) before += amount(memory.list[j]);
      }
      if (before < need && need <= before + amount(mine)) memory.found_key = mine;
    }
    __syncthreads();
    return memory.found_key;
  }
  // A key has five digits: the value in 11, 11 and 10 bits, the id in 11 and 11 (ids are below GK_MAX_VOCAB = 2^22).
  uint64_t found = 0;
  int known_from = 64, shift = 53;
#pragma unroll 1
  while (true) {
    auto count = [&](uint64_t key) {
      if (known_from < 64 && key >> known_from != found >> known_from) return;
      add_to_bin(memory, (uint32_t)(key >> shift & ((1ull << (known_from - shift)) - 1)), amount(key));
    };
    clear_bins(memory);
    if (n_listed <= SELECT_LIST) {
      for (uint32_t i = threadIdx.x; i < n_listed; i += blockDim.x) count(memory.list[i]);
    } else {
      for_each_key(row, after, until, [&](uint64_t key) {
        if (bin_of(row, key) == bin) count(key);
      });
    }
    find_bin(memory, [&](uint64_t) { return need; }, need);
    found |= (uint64_t)memory.found_bin << shift;
    need -= memory.found_before;
    if (shift == 0) return found;
    if (shift == 32) {
      uint64_t each = amount(found);
      if ((need + each - 1) / each * each >= memory.found_inside) {  // every token of this value is needed
        uint64_t all = found | 0xffffffffu;
        return all < until ? all : until;
      }
    }
    known_from = shift == 32 ? 22 : shift;
    shift = shift == 42 ? 32 : known_from - 11;
  }
}

}  // namespace gk
