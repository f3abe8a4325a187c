// Verification by equality: the length of the prefix of a draft that equals the target's sampled tokens, and the
// sampled token after that prefix. One warp a sequence.
#include "device.cuh"
#include "tuning.h"

namespace {

using namespace gk;

__global__ void __launch_bounds__(VERIFY_WARPS * 32) verify_kernel(gk_verify call) {
  int index = (int)blockIdx.x * VERIFY_WARPS + warp_id();
  if (index >= call.n_seqs) return;
  gk_verify_seq seq = call.seqs[index];
  const gk_sampled *sampled = call.sampled + seq.first_sampled;
  const uint32_t *drafted = call.drafted + seq.first_drafted;
  int n_accepted = seq.n_drafted;
  for (int base = 0; base < seq.n_drafted; base += 32) {
    int i = base + lane_id();
    bool differs = i < seq.n_drafted && drafted[i] != sampled[i].token;
    uint32_t lanes = __ballot_sync(ALL_LANES, differs);
    if (lanes != 0) {
      n_accepted = base + __ffs((int)lanes) - 1;
      break;
    }
  }
  if (lane_id() == 0) call.out[index] = gk_verified{n_accepted, sampled[n_accepted].token};
}

}  // namespace

GK_LAUNCHER(verify)(const gk_verify *call, gk_stream stream) {
  GK_REQUIRE(call->n_seqs >= 0);
  if (call->n_seqs == 0) return 0;
  GK_REQUIRE(call->sampled && call->seqs && call->out);
  unsigned n_blocks = (unsigned)gk::ceil_div(call->n_seqs, VERIFY_WARPS);
  return GK_LAUNCH(verify_kernel, dim3(n_blocks), dim3(VERIFY_WARPS * 32), 0, stream, *call);
}
