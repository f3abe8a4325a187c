// Philox4x32-10 (Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3"), equal to
// engine/backend/src/sample/philox.rs, and the Gumbel noise computed from it. The noise of a token is a function of
// seed, position and token.
#pragma once

#include "device.cuh"

namespace gk {

// The random words of tokens 4 * quad to 4 * quad + 3.
GK_DEVICE void philox_words(uint64_t seed, uint32_t position, uint32_t quad, uint32_t (&words)[4]) {
  uint32_t a = quad, b = position, c = 0, d = 0;
  uint32_t key_low = (uint32_t)seed, key_high = (uint32_t)(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    uint64_t p = (uint64_t)0xD2511F53u * a;
    uint64_t q = (uint64_t)0xCD9E8D57u * c;
    a = (uint32_t)(q >> 32) ^ b ^ key_low;
    c = (uint32_t)(p >> 32) ^ d ^ key_high;
    b = (uint32_t)q;
    d = (uint32_t)p;
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  words[0] = a, words[1] = b, words[2] = c, words[3] = d;
}

// The standard Gumbel variate of a random word: -ln(-ln v), v = (word + 1/2) / 2^32.
GK_DEVICE double gumbel(uint32_t word) { return -log(-log(((double)word + 0.5) / 4294967296.0)); }

// Upper bound of all noise: -ln(-ln(1 - 2^-33)) is 22.87.
static constexpr float MOST_NOISE = 22.9f;

// An upper bound of the noise of a word. Since -ln v >= 1 - v, the noise is at most -ln(1 - v). The bits of a float,
// read as an integer, give a lower bound of its log2. The bound needs no logarithm, and few tokens then need one.
GK_DEVICE float noise_bound(uint32_t word) {
  float rest = (float)(int32_t)(~word >> 1) + 0.25f;  // at most (1 - v) * 2^31
  float log2 = (float)(int32_t)__float_as_uint(rest) * (1.0f / 8388608.0f) - 127.0f;
  return (31.0f - log2) * 0.69314718f;
}

}  // namespace gk
