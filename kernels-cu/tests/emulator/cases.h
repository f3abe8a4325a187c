// Named test cases, and helpers for them. `main` runs one case, or all cases of a kind.
#pragma once
#include "device.cuh"

#include <vector>

struct Case {
  const char *name;
  bool must_die;
  void (*run)();
  Case *next;
  static Case *&first() {
    static Case *list = nullptr;
    return list;
  }
  Case(const char *name_, bool must_die_, void (*run_)()) : name(name_), must_die(must_die_), run(run_), next(first()) {
    first() = this;
  }
};

// CASE checks numbers. MUST_DIE must end the process with a message.
#define CASE(name)                                                                                                     \
  static void name();                                                                                                  \
  static Case name##_case(#name, false, name);                                                                         \
  static void name()
#define MUST_DIE(name)                                                                                                 \
  static void name();                                                                                                  \
  static Case name##_case(#name, true, name);                                                                          \
  static void name()

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: wrong: %s\n", __FILE__, __LINE__, #condition);                                           \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

// Pseudo-random numbers, the same in every run.
inline uint32_t noise(uint32_t i) {
  i = (i ^ 61) ^ (i >> 16);
  i *= 9;
  i ^= i >> 4;
  i *= 0x27d4eb2d;
  return i ^ i >> 15;
}
inline float small_noise(uint32_t i) { return (float)(noise(i) % 2001) / 1000.0f - 1.0f; }
