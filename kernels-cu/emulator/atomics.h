// Atomics, fences and cached loads. Atomics are also atomic among OS threads, which share the blocks of a grid.
#pragma once
#include "threads.h"

namespace emulator {

template <class T>
struct Same {
  using Type = T;
};
template <class T>
using Plain = typename Same<T>::Type;  // a parameter that does not take part in deducing T

// Replaces the value by `change` of it, and returns the old value.
template <class T, class F>
inline T atomic_update(T *place, F change) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Raw = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  Raw *raw = reinterpret_cast<Raw *>(place);
  Raw old = __atomic_load_n(raw, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(raw, &old, (Raw)bits(change(from_bits<T>(old))), true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return from_bits<T>(old);
}

}  // namespace emulator

template <class T>
inline T atomicAdd(T *place, emulator::Plain<T> value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(place, value, __ATOMIC_RELAXED);
  } else {
    return emulator::atomic_update(place, [=](T old) { return old + value; });
  }
}
template <class T>
inline T atomicSub(T *place, emulator::Plain<T> value) {
  static_assert(std::is_integral_v<T>);
  return __atomic_fetch_sub(place, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicMax(T *place, emulator::Plain<T> value) {
  static_assert(std::is_integral_v<T>);
  return emulator::atomic_update(place, [=](T old) { return std::max(old, value); });
}
template <class T>
inline T atomicMin(T *place, emulator::Plain<T> value) {
  static_assert(std::is_integral_v<T>);
  return emulator::atomic_update(place, [=](T old) { return std::min(old, value); });
}
template <class T>
inline T atomicAnd(T *place, emulator::Plain<T> value) {
  return __atomic_fetch_and(place, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicOr(T *place, emulator::Plain<T> value) {
  return __atomic_fetch_or(place, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicXor(T *place, emulator::Plain<T> value) {
  return __atomic_fetch_xor(place, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicExch(T *place, emulator::Plain<T> value) {
  return emulator::atomic_update(place, [=](T) { return value; });
}
template <class T>
inline T atomicCAS(T *place, emulator::Plain<T> expected, emulator::Plain<T> value) {
  __atomic_compare_exchange_n(place, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

inline void __threadfence() { emulator::fence(); }
inline void __threadfence_block() { emulator::fence(); }

template <class T>
inline T __ldg(const T *place) {
  return *place;
}
template <class T>
inline T __ldcg(const T *place) {
  return *place;
}
template <class T>
inline T __ldcs(const T *place) {
  return *place;
}
template <class T>
inline void __stcg(T *place, T value) {
  *place = value;
}
template <class T>
inline void __stcs(T *place, T value) {
  *place = value;
}
