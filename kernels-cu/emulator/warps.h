// Barriers, and the collectives of a warp: shuffles, votes, reductions.
#pragma once
#include "threads.h"

inline void __syncthreads(GALLEY_HERE) { emulator::barrier(false, file, line); }
inline int __syncthreads_count(int vote, GALLEY_HERE) { return (int)emulator::barrier(vote, file, line).for_it; }
inline int __syncthreads_or(int vote, GALLEY_HERE) { return emulator::barrier(vote, file, line).for_it != 0; }
inline int __syncthreads_and(int vote, GALLEY_HERE) {
  emulator::Votes votes = emulator::barrier(vote, file, line);
  return votes.for_it == votes.n_threads;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, GALLEY_HERE) {
  emulator::meet(emulator::Collective::Sync, mask, file, line);
}

namespace emulator {

template <class T>
inline T exchange(Collective what, uint32_t mask, T value, int source, const char *file, int line) {
  Exchange &warp = *current->exchange;
  const uint32_t lane = current->lane;
  warp.value[lane] = bits(value);
  warp.source[lane] = source;
  meet(what, mask, file, line);
  return from_bits<T>(warp.result[lane]);
}

// Returns lane `to` if it lies in the same group of `width` lanes, otherwise the own lane.
inline int within(int to, int width) {
  const int lane = (int)current->lane, first = lane & ~(width - 1);
  const bool is_power = width > 0 && (width & (width - 1)) == 0;
  if (!is_power || width > 32) fail("shuffle: the width %d is no power of two up to 32", width);
  return to >= first && to < first + width ? to : lane;
}

template <class T>
inline T shuffle(uint32_t mask, T value, int source, const char *file, int line) {
  return exchange(Collective::Shuffle, mask, value, source, file, line);
}

template <class T>
inline T reduce(Collective what, uint32_t mask, T value, const char *file, int line) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "the device reduces 32-bit integers");
  return exchange(what, mask, value, 0, file, line);
}

}  // namespace emulator

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, GALLEY_HERE) {
  int first = emulator::within((int)emulator::current->lane, width) & ~(width - 1);
  return emulator::shuffle(mask, value, first | (source & (width - 1)), file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, GALLEY_HERE) {
  // A lane can read groups before its own, and no later ones.
  int lane = (int)emulator::current->lane, to = lane ^ lanes;
  return emulator::shuffle(mask, value, to < (lane & ~(width - 1)) ? to : emulator::within(to, width), file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, GALLEY_HERE) {
  return emulator::shuffle(mask, value, emulator::within((int)emulator::current->lane - (int)by, width), file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, GALLEY_HERE) {
  return emulator::shuffle(mask, value, emulator::within((int)emulator::current->lane + (int)by, width), file, line);
}

inline unsigned __ballot_sync(unsigned mask, int vote, GALLEY_HERE) {
  return emulator::exchange(emulator::Collective::Ballot, mask, (unsigned)(vote != 0), 0, file, line);
}
inline int __any_sync(unsigned mask, int vote, GALLEY_HERE) { return __ballot_sync(mask, vote, file, line) != 0; }
inline int __all_sync(unsigned mask, int vote, GALLEY_HERE) { return __ballot_sync(mask, !vote, file, line) == 0; }

// The lanes that passed the same value.
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, GALLEY_HERE) {
  return (unsigned)emulator::exchange(emulator::Collective::Match, mask, emulator::bits(value), 0, file, line);
}

template <class T>
inline T __reduce_add_sync(unsigned mask, T value, GALLEY_HERE) {
  return emulator::reduce(emulator::Collective::Add, mask, value, file, line);
}
template <class T>
inline T __reduce_min_sync(unsigned mask, T value, GALLEY_HERE) {
  constexpr auto what = std::is_signed_v<T> ? emulator::Collective::MinSigned : emulator::Collective::Min;
  return emulator::reduce(what, mask, value, file, line);
}
template <class T>
inline T __reduce_max_sync(unsigned mask, T value, GALLEY_HERE) {
  constexpr auto what = std::is_signed_v<T> ? emulator::Collective::MaxSigned : emulator::Collective::Max;
  return emulator::reduce(what, mask, value, file, line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, GALLEY_HERE) {
  return emulator::reduce(emulator::Collective::And, mask, value, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, GALLEY_HERE) {
  return emulator::reduce(emulator::Collective::Or, mask, value, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, GALLEY_HERE) {
  return emulator::reduce(emulator::Collective::Xor, mask, value, file, line);
}
