//! Sampling tokens from logits: for the host, or for the batches that follow.

use crate::sample::{SampleRow, SampledToken, SampledTokens};
use crate::{DeviceMemory, Placeholders, Result};

/// Sampling whose result the host waits for.
pub trait Sampling: DeviceMemory {
    /// Samples one token for each entry of `rows`, from the logit row `logits_row`.
    fn sample(
        &mut self,
        logits: &Self::Tensor,
        rows: &[SampleRow<'_>],
    ) -> Result<Vec<SampledToken>>;
}

/// Sampling whose result stays on the device until the host reads it.
pub trait AsyncSampling: Sampling {
    /// Samples like [`Sampling::sample`], without waiting for the device. Returns one placeholder
    /// for each entry of `rows`, in order. A batch may contain a placeholder until
    /// [`Self::wait_tokens`] returns its token. The result is tokens only: no log-probabilities
    /// and no proposals.
    fn sample_async(
        &mut self,
        logits: &Self::Tensor,
        rows: &[SampleRow<'_>],
    ) -> Result<Placeholders>;
    /// Starts the copy to the host of all tokens that [`Self::sample_async`] has sampled since
    /// the last call. The device continues with its next operations meanwhile.
    fn start_token_copy(&mut self) -> Result<()>;
    /// Waits for the oldest copy that [`Self::start_token_copy`] has started and that was not taken
    /// yet. Without one, waits for all tokens that were sampled ahead. Returns the tokens; their
    /// placeholders become invalid and may be reused.
    fn wait_tokens(&mut self) -> Result<SampledTokens>;
}
