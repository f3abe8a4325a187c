// cp.async: copies that land at the wait, or at once, as GALLEY_EMULATOR_COPIES says. On a GPU they land at any time
// between. The code is in a header so that sanitizers attribute the accesses to the kernel.
#pragma once
#include "threads.h"

namespace emulator {

struct AsyncCopies {
  static constexpr int MAX = 256, MAX_GROUPS = 32;
  struct Copy {
    void *to;
    const void *from;  // null: zeros
  };
  int n, n_groups;
  int group_ends[MAX_GROUPS];
  Copy copies[MAX];
};

AsyncCopies &new_copies();

inline AsyncCopies &copies_here() { return current->copies ? *current->copies : new_copies(); }

inline void copy_16(void *to, const void *from) {
  if (from) {
    memcpy(to, from, 16);
  } else {
    memset(to, 0, 16);
  }
}

namespace device {

inline void copy_async_16(void *to, const void *from, bool valid = true) {
  if (((uintptr_t)to | (valid ? (uintptr_t)from : 0)) & 15) {
    fail("cp.async of 16 bytes from %p to %p: both must be multiples of 16", from, to);
  }
  if (block_here.early_copies) return copy_16(to, valid ? from : nullptr);
  AsyncCopies &list = copies_here();
  if (list.n == AsyncCopies::MAX) {
    fail("more than %d cp.async of a thread under way: commit and wait, or raise AsyncCopies::MAX", AsyncCopies::MAX);
  }
  list.copies[list.n++] = {to, valid ? from : nullptr};
}

inline void copy_async_commit() {
  AsyncCopies &list = copies_here();
  if (list.n_groups == AsyncCopies::MAX_GROUPS) {
    fail("more than %d groups of cp.async of a thread under way: wait for some", AsyncCopies::MAX_GROUPS);
  }
  list.group_ends[list.n_groups++] = list.n;
}

template <int N>
inline void copy_async_wait() {
  AsyncCopies &list = copies_here();
  const int n_done = list.n_groups - N;
  if (n_done <= 0) return;
  const int end = list.group_ends[n_done - 1];
  for (int i = 0; i < end; i++) copy_16(list.copies[i].to, list.copies[i].from);
  std::copy(list.copies + end, list.copies + list.n, list.copies);
  list.n -= end;
  for (int i = 0; i < N; i++) list.group_ends[i] = list.group_ends[n_done + i] - end;
  list.n_groups = N;
}

}  // namespace device
}  // namespace emulator
