//! Failing steps, on real models and with real drafters: the other requests give their expected
//! output.

use crate::runs::{Seen, Setup, open, seen_of};
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{BackendError, Batch, LayerMask, Observation, Placeholders};
use galley_engine::{DraftConfig, Engine, Request};
use galley_model::weights::Checkpoint;
use galley_model::{LanguageModel, LoadedModel, ModelIndex, Result, RowLimits};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model with its draft models, in which the call number `at`, counted from 0, fails.
pub struct Failing {
    inner: Box<dyn LanguageModel>,
    at: usize,
    n_calls: Arc<AtomicUsize>,
}

impl Failing {
    /// Counts a call, and fails if its number is `at`.
    fn call(&self, op: &'static str) -> Result<()> {
        if self.n_calls.fetch_add(1, Ordering::Relaxed) != self.at {
            return Ok(());
        }
        let error = "it was told to".into();
        Err(BackendError::Device { op, error }.into())
    }
}

impl LanguageModel for Failing {
    fn loaded(&self, model: ModelIndex) -> &LoadedModel {
        self.inner.loaded(model)
    }
    fn row_limits(&self) -> RowLimits {
        self.inner.row_limits()
    }
    fn device(&self) -> String {
        self.inner.device()
    }
    fn is_asynchronous(&self) -> bool {
        self.inner.is_asynchronous()
    }
    fn load_draft(&mut self, checkpoint: &Checkpoint) -> Result<ModelIndex> {
        self.inner.load_draft(checkpoint)
    }
    fn read_logits(&self, model: ModelIndex) -> Result<Vec<f32>> {
        self.inner.read_logits(model)
    }
    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.call("forward")?;
        self.inner.forward(model, batch, layers, observations)
    }
    fn finish_observing(&mut self, observations: &mut [Observation<'_>]) -> Result<()> {
        self.call("finish_observing")?;
        self.inner.finish_observing(observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        self.call("sample")?;
        self.inner.sample(model, rows)
    }
    fn sample_async(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        self.call("sample_async")?;
        self.inner.sample_async(model, rows)
    }
    fn start_token_copy(&mut self) -> Result<()> {
        self.call("start_token_copy")?;
        self.inner.start_token_copy()
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.call("wait_tokens")?;
        self.inner.wait_tokens()
    }
    fn copy_blocks(&mut self, copies: &[(u32, u32)]) -> Result<()> {
        self.call("copy_blocks")?;
        self.inner.copy_blocks(copies)
    }
}

/// The outcome of requests that were submitted together to an engine in which one call failed.
pub struct Outcome {
    /// For each request: its sequences, or the error with which it ended.
    pub requests: Vec<Result<Vec<Seen>, String>>,
    /// The results of the same requests, submitted to the same engine again.
    pub again: Vec<Vec<Seen>>,
    /// Number of calls until all requests had ended.
    pub n_calls: usize,
    /// Number of failed steps.
    pub n_failed_steps: u64,
    /// Number of draft tokens.
    pub n_drafted: u64,
}

/// Runs requests on a model in which call number `at` fails, and then runs all of them again.
pub fn run_failing(
    name: &str,
    setup: &Setup,
    drafting: &DraftConfig,
    requests: &[Request],
    at: usize,
) -> Outcome {
    let (inner, tokenizer) = open(name, setup);
    let n_calls = Arc::new(AtomicUsize::new(0));
    let model = Box::new(Failing { inner, at, n_calls: Arc::clone(&n_calls) });
    let config = setup.config.clone();
    let engine = Engine::start_with_drafters(model, Some(tokenizer), config, drafting)
        .expect("an engine starts");
    let handles = engine.submit_all(requests.iter().cloned()).expect("valid requests");
    let outcomes: Vec<_> =
        handles.into_iter().zip(requests).map(|(handle, r)| seen_of(handle, r.n)).collect();
    let n_calls = n_calls.load(Ordering::Relaxed);
    let again = requests.iter().map(|request| {
        let handle = engine.submit(request.clone()).expect("the engine takes requests");
        seen_of(handle, request.n).expect("no call fails any more")
    });
    let again = again.collect();
    engine.shutdown();
    let stats = engine.stats();
    assert_eq!(stats.kv_blocks_used, 0, "blocks of a step that failed");
    Outcome {
        requests: outcomes,
        again,
        n_calls,
        n_failed_steps: stats.failed_steps,
        n_drafted: stats.drafts.drafted,
    }
}

/// Checks about `n_runs` positions of a failing call: each request gives `expected` or ends with
/// the error of that call, and gives `expected` when it runs again. Returns how many requests
/// succeeded and how many ended with an error.
pub fn assert_the_others_go_on(
    name: &str,
    setup: &Setup,
    drafting: &DraftConfig,
    requests: &[Request],
    expected: &[Vec<Seen>],
    n_runs: usize,
) -> (usize, usize) {
    let undisturbed = run_failing(name, setup, drafting, requests, usize::MAX);
    let all: Vec<_> = expected.iter().cloned().map(Ok).collect();
    assert_eq!(undisturbed.requests, all, "{name}: without a failure");
    let (mut n_well, mut n_failed) = (0, 0);
    let n_calls = undisturbed.n_calls;
    for at in (0..n_calls).step_by((n_calls / n_runs).max(1)) {
        let outcome = run_failing(name, setup, drafting, requests, at);
        assert_eq!(outcome.n_failed_steps, 1, "{name}: call {at} of {n_calls}");
        assert_eq!(outcome.again, expected, "{name}: after call {at} has failed");
        for (i, (got, expected)) in outcome.requests.iter().zip(expected).enumerate() {
            match got {
                Ok(seen) => {
                    assert_eq!(seen, expected, "{name}: request {i}, call {at}");
                    n_well += 1;
                }
                Err(message) => {
                    assert!(message.contains("it was told to"), "{message}");
                    n_failed += 1;
                }
            }
        }
    }
    (n_well, n_failed)
}
