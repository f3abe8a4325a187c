//! A model that fails at some of its calls.

use crate::tests::toy::Toy;
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{BackendError, Batch, LayerMask, Observation, Placeholders};
use galley_model::{LanguageModel, LoadedModel, ModelError, ModelIndex, Result, RowLimits};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum How {
    /// The call refuses, before anything is done.
    Refuses,
    /// The call does something wrong and fails.
    DoesWrong,
    /// The call does something wrong. The call that waits for it fails, as on an asynchronous
    /// device.
    SaysSoLater,
}

/// A toy model that fails at a range of its calls, counted from 0.
pub(super) struct Failing {
    toy: Toy,
    at: Range<usize>,
    how: How,
    pub(super) n_calls: Arc<AtomicUsize>,
    /// Some work went wrong, and no call has waited for it.
    is_wrong: bool,
    /// For each copy of sampled tokens on its way: whether it comes from work that went wrong.
    sent: VecDeque<bool>,
}

impl Failing {
    pub(super) fn new(toy: Toy, at: Range<usize>, how: How) -> Self {
        let n_calls = Arc::default();
        Failing { toy, at, how, n_calls, is_wrong: false, sent: VecDeque::new() }
    }

    /// Counts a call. Returns whether the call fails.
    fn fails(&self) -> bool {
        self.at.contains(&self.n_calls.fetch_add(1, Ordering::Relaxed))
    }

    fn error(&self, op: &'static str) -> ModelError {
        let error = "it was told to".into();
        match self.how {
            How::Refuses => {
                let (expected, got) = ("a request it likes".into(), error);
                BackendError::Shape { op, expected, got }.into()
            }
            How::DoesWrong | How::SaysSoLater => BackendError::Device { op, error }.into(),
        }
    }

    /// Does `work`, or fails.
    fn call<T>(&mut self, op: &'static str, work: impl FnOnce(&mut Toy) -> Result<T>) -> Result<T> {
        if !self.fails() {
            return work(&mut self.toy);
        }
        if self.how != How::Refuses {
            work(&mut self.toy)?;
        }
        Err(self.error(op))
    }

    /// Waits for earlier work. Fails if that work went wrong.
    fn wait(&mut self, op: &'static str) -> Result<()> {
        if std::mem::take(&mut self.is_wrong) { Err(self.error(op)) } else { Ok(()) }
    }
}

impl LanguageModel for Failing {
    fn loaded(&self, model: ModelIndex) -> &LoadedModel {
        self.toy.loaded(model)
    }
    fn row_limits(&self) -> RowLimits {
        self.toy.row_limits()
    }
    fn device(&self) -> String {
        self.toy.device()
    }
    fn is_asynchronous(&self) -> bool {
        self.toy.is_asynchronous()
    }
    fn read_logits(&self, model: ModelIndex) -> Result<Vec<f32>> {
        self.toy.read_logits(model)
    }

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        if !self.fails() {
            return self.toy.forward(model, batch, layers, observations);
        }
        if self.how == How::Refuses {
            return Err(self.error("forward"));
        }
        self.toy.forward(model, batch, layers, observations)?;
        self.toy.spoil(batch);
        if self.how == How::DoesWrong {
            return Err(self.error("forward"));
        }
        self.is_wrong = true;
        Ok(())
    }
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        self.wait("finish_observing")?;
        self.call("finish_observing", |toy| toy.finish_observing(observations))
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.wait("sample")?;
        self.call("sample", |toy| toy.sample(model, rows))
    }
    fn sample_async(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        self.call("sample_async", |toy| toy.sample_async(model, rows))
    }
    fn start_token_copy(&mut self) -> Result<()> {
        self.call("start_token_copy", Toy::start_token_copy)?;
        self.sent.push_back(std::mem::take(&mut self.is_wrong));
        Ok(())
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        let fails = self.fails();
        if fails && self.how == How::Refuses {
            return Err(self.error("wait_tokens"));
        }
        let sampled = self.toy.wait_tokens()?;
        let is_wrong = self.sent.pop_front().unwrap_or_else(|| std::mem::take(&mut self.is_wrong));
        if fails || is_wrong { Err(self.error("wait_tokens")) } else { Ok(sampled) }
    }
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()> {
        self.call("copy_blocks", |toy| toy.copy_blocks(copies))
    }
}
