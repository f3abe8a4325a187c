// ldmatrix and mma.sync, with the fragment layouts of the PTX manual (collectives.cpp computes them).
#pragma once
#include "threads.h"

namespace emulator {

// Reads a row for the race detector: the last lane to arrive will read it on behalf of this lane.
inline void touch_row(const void *row) {
#ifdef GALLEY_EMULATOR_TSAN
  const volatile uint64_t *p = static_cast<const volatile uint64_t *>(row);
  (void)p[0], (void)p[1];
#else
  (void)row;
#endif
}

inline void load_matrix(Collective what, uint32_t (&r)[4], const void *row, const char *file, int line) {
  if ((uintptr_t)row & 15) fail("%s:%d: ldmatrix: the row address %p is no multiple of 16", file, line, row);
  touch_row(row);
  Exchange &warp = *current->exchange;
  const uint32_t lane = current->lane;
  warp.row[lane] = row;
  meet(what, 0xffffffffu, file, line);
  for (int i = 0; i < 4; i++) r[i] = warp.a[i][lane];
}

namespace device {

inline void load_matrix_x4(uint32_t (&r)[4], const void *row, GALLEY_HERE) {
  load_matrix(Collective::Load, r, row, file, line);
}
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void *row, GALLEY_HERE) {
  load_matrix(Collective::LoadTransposed, r, row, file, line);
}

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, GALLEY_HERE) {
  Exchange &warp = *current->exchange;
  const uint32_t lane = current->lane;
  for (int i = 0; i < 4; i++) warp.a[i][lane] = a[i];
  warp.b[0][lane] = b0;
  warp.b[1][lane] = b1;
  warp.d[0][lane] = {d[0], d[1]};
  warp.d[1][lane] = {d[2], d[3]};
  meet(Collective::Multiply, 0xffffffffu, file, line);
  d[0] = warp.d[0][lane].x;
  d[1] = warp.d[0][lane].y;
  d[2] = warp.d[1][lane].x;
  d[3] = warp.d[1][lane].y;
}

}  // namespace device
}  // namespace emulator
