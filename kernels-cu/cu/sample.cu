// Samples a token from a row of logits by Gumbel-max: argmax(logits / temperature + noise) over the tokens that top-k,
// top-p and min-p keep. engine/backend/src/sample/ is the definition. Equal logits give equal tokens on CPU and device,
// because integers decide every cutoff. (The noise is f64: device logarithms may differ from the CPU's in the last bit,
// which decides near-ties of 1e-15.)
//
// One block of threads takes a row, and the row stays in L2: 128k values are 512 KB, and an SM reads about 64 bytes a
// cycle, so a pass costs about 5 us on sm_90 (computed, not measured). Greedy sampling is one pass. Plain temperature
// is two, and its noise costs about 20 us more at the integer rate of one SM. Top-k and top-p are two passes each, and
// leave little noise to compute. Log-probabilities are two passes, and two more with alternatives.
// Few rows leave the other SMs idle: under 60 us beside a forward of milliseconds, and no partial results to merge.
#include "philox.cuh"
#include "cutoff.cuh"

namespace {

using namespace gk;

struct SampleMemory {
  SelectMemory select;
  double score;
  uint32_t token;
};

// The key of the first token in the order. NaN counts as -inf; if no value is above -inf, the key is that of token 0.
template <class F>
GK_DEVICE uint64_t first_key(SampleMemory &memory, const float *logits, int n, F value_of_logit) {
  uint64_t first = ~0ull;
  for_each_quad<4>(logits, n, [&](const float(&quad)[4], int token) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint64_t key = key_of(value_of_logit(quad[i]), (uint32_t)(token + i));
      first = key < first ? key : first;
    }
  });
  return block_min(first, memory.select.scratch);
}

// Returns log(sum(exp(logits))), and sets `row.top` to the largest logit.
GK_DEVICE double log_total_of(SampleMemory &memory, RowView &row) {
  row.top = value_of(first_key(memory, row.logits, row.n, [](float logit) { return tempered(logit, 1.0f); }));
  uint64_t sum = 0, total;
  for_each_quad<4>(row.logits, row.n, [&](const float(&quad)[4], int) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float below = tempered(quad[i], 1.0f) - row.top;
      if (below >= LIGHTEST) sum += weight_of(below);  // false for NaN, the difference where all are -inf
    }
  });
  block_sum_before(sum, memory.select.scratch, total);
  return (double)row.top + log((double)total / WEIGHT_OF_ONE);
}

GK_DEVICE float log_probability(float logit, double log_total) {
  if (!(logit > minus_infinity())) return minus_infinity();  // also NaN
  return (float)((double)(logit < LARGEST ? logit : LARGEST) - log_total);
}

// Writes the most likely tokens of a row in order, one page of the list at a time.
GK_DEVICE void report_top(SampleMemory &memory, const RowView &row, double log_total, int n_top, gk_sampled *top) {
  SelectMemory &select_memory = memory.select;
  uint64_t after = BEFORE_ALL;
  for (int done = 0; done < n_top;) {
    int n = n_top - done < (int)SELECT_LIST ? n_top - done : (int)SELECT_LIST;
    uint64_t last = select(
        select_memory, row, after, KEEP_ALL, [](uint64_t) { return (uint64_t)1; },
        [&](uint64_t) { return (uint64_t)n; });
    __syncthreads();
    if (threadIdx.x == 0) select_memory.n_listed = 0;
    __syncthreads();
    for_each_key(row, after, last,
                 [&](uint64_t key) { select_memory.list[atomicAdd(&select_memory.n_listed, 1u)] = key; });
    __syncthreads();
    int n_listed = (int)select_memory.n_listed;
    for (int i = threadIdx.x; i < n_listed; i += blockDim.x) {
      uint64_t mine = select_memory.list[i];
      int n_before = 0;
      for (int j = 0; j < n_listed; j++) n_before += select_memory.list[j] < mine;
      uint32_t token = (uint32_t)mine;
      top[done + n_before] = gk_sampled{token, log_probability(row.logits[token], log_total)};
    }
    done += n_listed;
    if (n_listed < n) {  // no further token is above -inf
      for (int i = done + threadIdx.x; i < n_top; i += blockDim.x) top[i] = gk_sampled{GK_NO_TOKEN, minus_infinity()};
      break;
    }
    after = last;
  }
  __syncthreads();
}

// Copies a row and applies its edits: bias, then penalties, then bans.
GK_DEVICE void edit(const float *logits, int n, const gk_sample_row &row, const gk_edit *edits, float *edited) {
  // Four loads at once: one at a time, 128k values would wait about 60 us for L2.
  const bool whole = ((uintptr_t)edited & 15) == 0;
  for_each_quad<4>(logits, n, [&](const float(&quad)[4], int first) {
    if (whole && first + 4 <= n) {
      *reinterpret_cast<float4 *>(edited + first) = make_float4(quad[0], quad[1], quad[2], quad[3]);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (first + i < n) edited[first + i] = quad[i];
    }
  });
  __syncthreads();
  for (int i = threadIdx.x; i < row.n_edits; i += blockDim.x) {
    gk_edit edit = edits[row.first_edit + i];
    if (edit.token >= (uint32_t)n) continue;
    float logit = __fadd_rn(edited[edit.token], edit.bias);
    if (edit.flags & GK_SEEN) {
      logit = logit > 0.0f ? __fdiv_rn(logit, row.repetition_penalty) : __fmul_rn(logit, row.repetition_penalty);
      if (edit.n_in_output > 0) {
        float frequency = __fmul_rn(row.frequency_penalty, (float)edit.n_in_output);
        logit = __fsub_rn(__fsub_rn(logit, frequency), row.presence_penalty);
      }
    }
    edited[edit.token] = edit.flags & GK_BANNED ? minus_infinity() : logit;
  }
  __syncthreads();
}

// The cutoff of top-k, then of top-p over the tokens that top-k keeps, then of min-p.
GK_DEVICE uint64_t cutoff_of(SampleMemory &memory, const RowView &row, const gk_sample_row &settings) {
  uint64_t cutoff = KEEP_ALL;
  if (settings.top_k > 0 && settings.top_k < (uint32_t)row.n) {
    cutoff = select(
        memory.select, row, BEFORE_ALL, cutoff, [](uint64_t) { return (uint64_t)1; },
        [&](uint64_t) { return (uint64_t)settings.top_k; });
    __syncthreads();
  }
  if (settings.top_p < 1.0f) {
    auto weight = [&](uint64_t key) {
      float below = value_of(key) - row.top;
      return below < LIGHTEST ? (uint64_t)0 : weight_of(below);
    };
    auto needed = [&](uint64_t total) {
      double part = ceil((double)settings.top_p * (double)total);
      return part > 1.0 ? (uint64_t)part : (uint64_t)1;
    };
    cutoff = select(memory.select, row, BEFORE_ALL, cutoff, weight, needed);
    __syncthreads();
  }
  if (settings.min_p > 0.0f) {
    // The logarithm is f64, rounded to f32: the CPU's f32 logarithm is nearly always correctly rounded.
    uint64_t by_min_p = key_of(__fadd_rn(row.top, (float)log((double)settings.min_p)), 0xffffffffu);
    cutoff = by_min_p < cutoff ? by_min_p : cutoff;
  }
  return cutoff;
}

struct Leader {
  double score;
  uint32_t token;

  __device__ void enter(double other, uint32_t other_token) {
    if (other > score || (other == score && other_token < token)) score = other, token = other_token;
  }
};

// The score that a token must reach to matter: the leader's, less the error of f32 and of the noise bound.
GK_DEVICE float pace_of(double score) { return (float)(score - 1e-3 - fabs(score) * 2.4e-7); }

// The kept token with the largest sum of value and noise.
GK_DEVICE uint32_t race(SampleMemory &memory, const RowView &row, uint64_t first, uint64_t cutoff, uint64_t seed,
                        uint32_t position) {
  if (first > cutoff) return 0;
  // The most likely token sets the first pace, and most other tokens cannot reach it.
  Leader leader = {(double)minus_infinity(), 0xffffffffu};
  if (threadIdx.x == 0) {
    uint32_t words[4], token = (uint32_t)first;
    philox_words(seed, position, token / 4, words);
    uint32_t word = token % 4 == 0 ? words[0] : token % 4 == 1 ? words[1] : token % 4 == 2 ? words[2] : words[3];
    leader.enter((double)row.top + gumbel(word), token);
    memory.score = leader.score;
  }
  __syncthreads();
  float pace = pace_of(memory.score);
  for_each_quad<1>(row.logits, row.n, [&](const float(&quad)[4], int token) {
    float values[4];
    uint32_t maybe = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      values[i] = tempered(quad[i], row.factor);
      if (values[i] + MOST_NOISE >= pace && key_of(values[i], (uint32_t)(token + i)) <= cutoff) maybe |= 1u << i;
    }
    if (!__any_sync(ALL_LANES, maybe != 0)) return;
    uint32_t words[4];
    philox_words(seed, position, (uint32_t)token / 4, words);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (!(noise_bound(words[i]) > pace - values[i])) maybe &= ~(1u << i);
    }
    if (!__any_sync(ALL_LANES, maybe != 0)) return;
#pragma unroll 1
    while (maybe != 0) {  // a loop, so that the logarithms are compiled once for all four
      int i = __ffs((int)maybe) - 1;
      maybe &= maybe - 1;
      float value = i == 0 ? values[0] : i == 1 ? values[1] : i == 2 ? values[2] : values[3];
      uint32_t word = i == 0 ? words[0] : i == 1 ? words[1] : i == 2 ? words[2] : words[3];
      leader.enter((double)value + gumbel(word), (uint32_t)(token + i));
    }
    float own = leader.token == 0xffffffffu ? pace : pace_of(leader.score);
    pace = own > pace ? own : pace;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      float other = __shfl_xor_sync(ALL_LANES, pace, step);
      pace = other > pace ? other : pace;
    }
  });
  uint64_t bits, best;
  double score = leader.score + 0.0;  // zeros of both signs are one score
  memcpy(&bits, &score, sizeof bits);
  bits = ~(bits ^ (bits >> 63 ? ~0ull : 1ull << 63));  // ascending where scores descend
  best = block_min(bits, memory.select.scratch);
  return (uint32_t)block_min(bits == best ? leader.token : ~0ull, memory.select.scratch);
}

__global__ void __launch_bounds__(SAMPLE_THREADS) sample_kernel(gk_sample call) {
  GK_DYNAMIC_SHARED(shared);
  SampleMemory &memory = *reinterpret_cast<SampleMemory *>(shared);
  const gk_sample_row settings = call.rows[blockIdx.x];
  const float *raw = call.logits + settings.logits_row * call.logits_stride;

  double log_total = 0.0;
  if (settings.n_top >= 0) {
    RowView row = {raw, call.n_vocab, 1.0f, 0.0f};
    log_total = log_total_of(memory, row);
    if (settings.n_top > 0) report_top(memory, row, log_total, settings.n_top, call.top + settings.top);
  }

  RowView row = {raw, call.n_vocab, 1.0f, 0.0f};
  if (settings.n_edits > 0) {
    float *edited = call.edited + settings.edited * (int64_t)call.n_vocab;
    edit(raw, call.n_vocab, settings, call.edits, edited);
    row.logits = edited;
  }

  uint32_t token;
  if (settings.temperature < 1e-4f) {
    auto logit_or_nothing = [](float logit) { return logit > minus_infinity() ? logit : minus_infinity(); };
    token = (uint32_t)first_key(memory, row.logits, row.n, logit_or_nothing);
  } else {
    row.factor = __fdiv_rn(1.0f, settings.temperature);
    uint64_t first = first_key(memory, row.logits, row.n, [&](float logit) { return tempered(logit, row.factor); });
    row.top = value_of(first);
    token = 0;
    if (row.top > minus_infinity()) {
      uint64_t cutoff = cutoff_of(memory, row, settings);
      token = race(memory, row, first, cutoff, settings.seed, settings.position);
    }
  }
  if (threadIdx.x == 0) {
    float logprob = settings.n_top >= 0 ? log_probability(raw[token], log_total) : 0.0f;
    call.sampled[blockIdx.x] = gk_sampled{token, logprob};
  }
}

}  // namespace

GK_LAUNCHER(sample)(const gk_sample *call, gk_stream stream) {
  GK_REQUIRE(call->n_rows >= 0);
  if (call->n_rows == 0) return 0;
  GK_REQUIRE(call->logits && call->rows && call->sampled);
  GK_REQUIRE(call->n_vocab > 0 && call->n_vocab <= GK_MAX_VOCAB && call->logits_stride >= call->n_vocab);
  int threads = gk::ceil_div(call->n_vocab, SAMPLE_VALUES_PER_THREAD * 32) * 32;
  threads = threads < 64 ? 64 : threads > SAMPLE_THREADS ? SAMPLE_THREADS : threads;
  return GK_LAUNCH(sample_kernel, dim3((unsigned)call->n_rows), dim3((unsigned)threads), sizeof(SampleMemory), stream,
                   *call);
}
