//! Sampling on the device.

use crate::cuda::{CudaBackend, Tensor};
use crate::sample::{SampleRow, SampledToken, SampledTokens};
use crate::{AsyncSampling, Placeholders, Result, Sampling};

impl Sampling for CudaBackend {
    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.sampler.sample(&self.device, logits, rows)
    }
}

impl AsyncSampling for CudaBackend {
    fn sample_async(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        self.sampler.sample_pending(&self.device, logits, rows)
    }

    fn start_token_copy(&mut self) -> Result<()> {
        self.sampler.start_token_copy()
    }

    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.sampler.wait_tokens()
    }
}
