//! Sampling on the threads. A token that is sampled asynchronously is known at once.

use crate::cpu::buffer::DisjointPtr;
use crate::cpu::{CpuBackend, Tensor};
use crate::sample::{SampleRow, SampledToken, SampledTokens, sample_token};
use crate::{AsyncSampling, Placeholders, Result, Sampling};

/// Approximate cost of sampling per logit, in multiply-adds: passes over the row and a share of the
/// sorting.
const WORK_PER_LOGIT: usize = 32;

impl Sampling for CpuBackend {
    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        let mut sampled: Vec<Option<SampledToken>> = vec![None; rows.len()];
        let out = DisjointPtr::of(&mut sampled);
        let samplers = DisjointPtr::of(&mut self.samplers);
        self.threads.for_each(rows.len(), logits.shape.cols * WORK_PER_LOGIT, |i, thread| {
            let row = &rows[i];
            // SAFETY: one unit writes `out[i]`, and each thread has its own sampler.
            unsafe {
                let scratch = &mut *samplers.ptr().add(thread);
                *out.ptr().add(i) =
                    Some(sample_token(logits.f32_row(row.logits_row), row, scratch));
            }
        });
        Ok(sampled.into_iter().flatten().collect())
    }
}

impl AsyncSampling for CpuBackend {
    fn sample_async(&mut self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        let sampled = self.sample(logits, rows)?;
        let tokens: Vec<u32> = sampled.iter().map(|sampled| sampled.token).collect();
        Ok(self.pending.push(&tokens))
    }

    fn start_token_copy(&mut self) -> Result<()> {
        self.pending.send();
        Ok(())
    }

    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        Ok(self.pending.take())
    }
}
