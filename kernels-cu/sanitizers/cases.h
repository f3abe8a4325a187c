// Helpers for the cases of launchers.cpp: memory of exact size, numbers to fill it, and a pool.
#pragma once

#include "galley_kernels.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

// One case for each launcher of the table, under its name.
void embed();
void rms_norm();
void angles();
void rope_store();
void copy_blocks();
void linear();
void attention();
void observe();
void sample();
void verify();
void history();

// Calls a launcher, which must not refuse the call, and records the call.
#define RUN(launcher, call) called(#launcher, galley_emulated_kernels()->launcher(&(call), nullptr))
void called(const char *launcher, int32_t error);
void digest_bytes(const unsigned char *bytes, size_t n);

// Memory of exactly this many values, so that a sanitizer notices a read past the end.
template <class T>
struct Values {
  T *at;
  size_t n;
  explicit Values(size_t n_) : at(static_cast<T *>(calloc(n_, sizeof(T)))), n(n_) {}
  ~Values() { free(at); }
  Values(const Values &) = delete;
};

inline float number(size_t i) { return (float)(i * 7919 % 2001) / 1000.0f - 1.0f; }
inline gk_bf16 rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (gk_bf16)(bits >> 16);
}
inline void fill(const Values<float> &values) {
  for (size_t i = 0; i < values.n; i++) values.at[i] = number(i);
}
// Rows of `n_cols` numbers, zero up to the stride.
inline void fill(const Values<gk_bf16> &values, size_t n_cols, size_t stride) {
  for (size_t i = 0; i < values.n; i++) values.at[i] = i % stride < n_cols ? rounded(number(i)) : 0;
}

// Ends the process unless the condition holds.
inline void expect(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

// Adds results to the digest that is printed for a case. The digest is the same in every schedule.
template <class T>
void digest(const Values<T> &values) {
  digest_bytes(reinterpret_cast<const unsigned char *>(values.at), values.n * sizeof(T));
}

// Checks that results are finite, and adds them to the digest.
inline void accept(const char *what, const Values<float> &values) {
  for (size_t i = 0; i < values.n; i++) expect(std::isfinite(values.at[i]), what);
  digest(values);
}
inline void accept(const char *what, const Values<gk_bf16> &values) {
  for (size_t i = 0; i < values.n; i++) expect((values.at[i] & 0x7f80) != 0x7f80, what);
  digest(values);
}

inline int64_t padded(int64_t n) { return (n + 63) / 64 * 64; }

// A pool, and one sequence in it with a block table that runs backwards.
struct Cache {
  gk_kv kv = {};
  Values<gk_bf16> memory;
  Values<uint32_t> table, tokens, positions, selected;
  Values<int32_t> slots;
  Values<gk_seq> seqs;
  gk_batch batch = {};
  int n_heads, q_cols;

  Cache(int head_dim, int n_kv_heads, int group, int n_blocks, int first_position, int n_rows, int n_selected = 1)
      : memory((size_t)2 * n_kv_heads * 2 * n_blocks * 16 * head_dim),
        table(n_blocks),
        tokens(n_rows),
        positions(n_rows),
        selected(n_selected),
        slots(n_rows),
        seqs(1),
        n_heads(n_kv_heads * group),
        q_cols((int)padded(n_heads * head_dim)) {
    fill(memory, 1, 1);
    kv.base = memory.at;
    kv.block_stride = 16 * head_dim, kv.values_at = n_blocks * kv.block_stride, kv.arena_stride = 2 * kv.values_at;
    kv.arena_blocks = n_blocks, kv.n_layers = 2, kv.n_kv_heads = n_kv_heads;
    kv.head_dim = head_dim, kv.block_size = 16, kv.layer = 1;
    for (int i = 0; i < n_blocks; i++) table.at[i] = n_blocks - 1 - i;
    for (int i = 0; i < n_rows; i++) {
      const int position = first_position + i;
      positions.at[i] = position;
      slots.at[i] = (int32_t)table.at[position / 16] * 16 + position % 16;
    }
    seqs.at[0].n_rows = n_rows;
    seqs.at[0].first_position = first_position;
    batch.tokens = tokens.at, batch.positions = positions.at, batch.slots = slots.at, batch.seqs = seqs.at;
    batch.block_tables = table.at, batch.selected = selected.at;
    batch.n_rows = n_rows, batch.n_seqs = 1;
  }
};

