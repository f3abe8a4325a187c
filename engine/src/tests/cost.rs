//! Time that the engine itself takes in a step. Not a check: the test prints the time.

use super::schedules::Random;
use super::toy::VOCAB;
use crate::config::EngineConfig;
use crate::drafting::Drafting;
use crate::event_sink::EventSink;
use crate::request::{Prompt, Request, ValidRequest};
use crate::step::EngineCore;
use crossbeam_channel::unbounded;
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, LayerMask, Observation, Placeholders};
use galley_model::{LanguageModel, LoadedModel, ModelIndex, Result, RowLimits};
use std::hint::black_box;
use std::time::Duration;

/// A model that takes no time.
struct Instant(super::toy::Toy);

impl LanguageModel for Instant {
    fn loaded(&self, model: ModelIndex) -> &LoadedModel {
        self.0.loaded(model)
    }
    fn row_limits(&self) -> RowLimits {
        RowLimits::new(self.0.row_limits().max_rows, usize::MAX)
    }
    fn device(&self) -> String {
        "none".into()
    }
    fn forward(
        &mut self,
        _: ModelIndex,
        batch: &Batch<'_>,
        _: &LayerMask<'_>,
        _: &mut [Observation<'_>],
    ) -> Result<()> {
        black_box(batch.tokens.len());
        Ok(())
    }
    fn finish_observing(&mut self, _: &mut [Observation<'_>]) -> Result<()> {
        Ok(())
    }
    fn sample(&mut self, _: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        Ok(rows.iter().map(|row| SampledToken::of(row.position % VOCAB as u32)).collect())
    }
    fn sample_async(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Placeholders> {
        self.0.sample_async(model, rows)
    }
    fn start_token_copy(&mut self) -> Result<()> {
        self.0.start_token_copy()
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        self.0.wait_tokens()
    }
    fn is_asynchronous(&self) -> bool {
        self.0.is_asynchronous()
    }
    fn read_logits(&self, _: ModelIndex) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
    fn copy_blocks(&mut self, _: &[(u32, u32)]) -> Result<()> {
        Ok(())
    }
}

#[test]
fn time_of_a_step() {
    for (n_seqs, n_prompt) in [(1, 512), (64, 512), (64, 4096), (256, 512)] {
        let n_blocks = n_seqs * (n_prompt + 400) / 16 + 100;
        let config = EngineConfig { max_num_seqs: n_seqs, ..EngineConfig::default() };
        let model = Box::new(Instant(super::toy::Toy::new(n_blocks, 16, 2048)));
        let sizes = config.fit(&*model).unwrap();
        let limits = EngineCore::limits(&*model, &sizes, &Drafting::default());
        let mut core = EngineCore::new(model, None, &sizes, Drafting::default());
        let mut receivers = Vec::new();
        // 20 sequences wait as well: they must cost nothing.
        for i in 0..n_seqs + 20 {
            let request = Request::new(Prompt::Tokens(Random::new(i as u32).tokens(n_prompt)))
                .max_tokens(300)
                .ignore_eos(true);
            let (sender, receiver) = unbounded();
            let valid = ValidRequest::new(request, &limits, None).unwrap();
            core.add(valid, i as u64, EventSink::Handle(sender), None);
            receivers.push(receiver);
        }
        let mut took = Vec::new();
        while core.stats().generated_tokens < (n_seqs * 250) as u64 {
            core.step().unwrap();
            let step = core.stats().last_step;
            if step.n_rows == n_seqs && step.n_generated == n_seqs {
                took.push(step.bookkeeping);
            }
        }
        took.sort();
        let micros = |d: Duration| d.as_secs_f64() * 1e6;
        let median = took.get(took.len() / 2).map_or(0.0, |&d| micros(d));
        let most = took.last().map_or(0.0, |&d| micros(d));
        println!(
            "{n_seqs} sequences of {n_prompt}: {median:.1} us a decode step, at most {most:.1} us, {} steps",
            took.len()
        );
    }
}
