// The order of tokens (larger value first, then lower id) as integers, and the weight of a token. Both match
// engine/backend/src/sample/ (passes.rs, keep.rs) bit for bit.
#pragma once

#include "device.cuh"

namespace gk {

static constexpr float LARGEST = 3.402823466e38f;
static constexpr float LIGHTEST = -29.0f;  // below this, a weight is 0

GK_DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

// The rank ascends where values descend. `value` is not NaN; zeros of both signs have one rank.
GK_DEVICE uint32_t rank_of(float value) {
  uint32_t bits = value == 0.0f ? 0u : __float_as_uint(value);
  return ~(bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u));
}
GK_DEVICE float value_of_rank(uint32_t rank) {
  uint32_t ordered = ~rank;
  return __uint_as_float(ordered ^ (ordered >> 31 ? 0x80000000u : 0xffffffffu));
}

// The key ascends in the order of tokens. A cutoff is a key: it keeps the keys up to itself.
GK_DEVICE uint64_t key_of(float value, uint32_t token) { return (uint64_t)rank_of(value) << 32 | token; }
GK_DEVICE float value_of(uint64_t key) { return value_of_rank((uint32_t)(key >> 32)); }

static constexpr uint64_t BEFORE_ALL = 0;  // below the key of every token
// The cutoff that keeps every token above -inf: the key of the lowest finite value and the highest id.
static constexpr uint64_t KEEP_ALL = 0xff7fffffffffffffull;

// A logit divided by the temperature (`factor` is its inverse): NaN becomes -inf, and +inf the largest finite number.
GK_DEVICE float tempered(float logit, float factor) {
  float value = __fmul_rn(logit, factor);
  value = value < LARGEST ? value : LARGEST;  // also replaces NaN
  return logit > minus_infinity() ? value : minus_infinity();
}

// exp(x) for x up to 0. Roundings are spelled out: a contraction to a fused multiply-add would give other bits.
GK_DEVICE float exp_below_0(float x) {
  const float round = 12582912.0f;  // adding and subtracting it rounds to the nearest integer
  x = x > -87.0f ? x : -87.0f;
  float rounded = __fadd_rn(__fmul_rn(x, 1.44269504f), round);
  float n = __fsub_rn(rounded, round);
  float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.6933594f)), __fmul_rn(n, -2.1219444e-4f));
  float poly = 1.9875691e-4f;
  poly = __fadd_rn(__fmul_rn(poly, r), 1.3982e-3f);
  poly = __fadd_rn(__fmul_rn(poly, r), 8.333452e-3f);
  poly = __fadd_rn(__fmul_rn(poly, r), 4.1665796e-2f);
  poly = __fadd_rn(__fmul_rn(poly, r), 0.16666665f);
  poly = __fadd_rn(__fmul_rn(poly, r), 0.5f);
  poly = __fadd_rn(__fadd_rn(__fmul_rn(poly, __fmul_rn(r, r)), r), 1.0f);
  return __fmul_rn(poly, __uint_as_float((__float_as_uint(rounded) - __float_as_uint(round) + 127u) << 23));
}

// exp(x) * 2^40 to the nearest integer, ties to even. Integer arithmetic, since many GPUs have little f64 throughput.
GK_DEVICE uint64_t weight_of(float x) {
  uint32_t bits = __float_as_uint(exp_below_0(x));
  int shift = (int)(bits >> 23) - 127 + 17;
  uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  if (shift >= 0) return (uint64_t)mantissa << shift;
  shift = -shift;
  if (shift > 24) return 0;
  return (mantissa + (1u << (shift - 1)) - 1u + (mantissa >> shift & 1u)) >> shift;
}
static constexpr double WEIGHT_OF_ONE = 1099511627776.0;

}  // namespace gk
