// Prompt lookup: returns the tokens that followed the latest earlier occurrence of the longest suffix of a sequence.
// The definition is engine/src/drafting/lookup.rs. One block takes a sequence and tries every earlier place of the last
// token. The longest match wins, and of equal lengths the latest: a maximum over (length, place) in any order.
#include "block.cuh"
#include "tuning.h"

namespace {

using namespace gk;

__global__ void __launch_bounds__(HISTORY_THREADS) history_kernel(gk_history call) {
  GK_DYNAMIC_SHARED(shared);
  uint64_t *scratch = reinterpret_cast<uint64_t *>(shared);
  const gk_history_seq seq = call.seqs[blockIdx.x];
  const uint32_t *tokens = call.tokens + seq.first;
  int last = seq.n_tokens - 1;
  uint64_t best = 0;  // high half: length; low half: the place after the match
  const uint32_t last_token = last >= 0 ? tokens[last] : 0;
  for (int first = threadIdx.x; first < last; first += HISTORY_AHEAD * blockDim.x) {
    uint32_t here[HISTORY_AHEAD];  // loaded at once; few of them equal the last token
#pragma unroll
    for (int i = 0; i < HISTORY_AHEAD; i++) {
      int at = first + i * (int)blockDim.x;
      here[i] = at < last ? tokens[at] : ~last_token;
    }
#pragma unroll
    for (int i = 0; i < HISTORY_AHEAD; i++) {
      if (here[i] != last_token) continue;
      int at = first + i * (int)blockDim.x, length = 0;
      while (length < seq.max_n && length <= at && tokens[at - length] == tokens[last - length]) length++;
      uint64_t match = (uint64_t)length << 32 | (uint32_t)(at + 1);
      best = match > best ? match : best;
    }
  }
  best = ~block_min(~best, scratch);
  int length = (int)(best >> 32), follows = (int)(uint32_t)best;
  int count = 0;
  if (length >= (seq.min_n > 1 ? seq.min_n : 1)) {
    count = seq.n_tokens - follows < seq.n ? seq.n_tokens - follows : seq.n;
    count = count < call.found_stride ? count : call.found_stride;
    count = count > 0 ? count : 0;
  }
  uint32_t *found = call.found + (int64_t)blockIdx.x * call.found_stride;
  for (int i = threadIdx.x; i < count; i += blockDim.x) found[i] = tokens[follows + i];
  if (threadIdx.x == 0) call.counts[blockIdx.x] = count;
}

}  // namespace

GK_LAUNCHER(history)(const gk_history *call, gk_stream stream) {
  GK_REQUIRE(call->n_seqs >= 0);
  if (call->n_seqs == 0) return 0;
  GK_REQUIRE(call->tokens && call->seqs && call->found && call->counts && call->found_stride > 0);
  return GK_LAUNCH(history_kernel, dim3((unsigned)call->n_seqs), dim3(HISTORY_THREADS),
                   gk::MAX_WARPS * sizeof(uint64_t), stream, *call);
}
