//! Runs a step's forward over block tables, and samples from it.

use crate::batch::{BatchBuffers, BatchBuilder, Span};
use crate::drafting::PiggybackSelection;
use crate::sequence::{Sequence, SequenceKey};
use galley_backend::sample::{SampleRow, SampledToken};
use galley_backend::{KvView, LayerMask, Placeholder};
use galley_model::{LanguageModel, ModelIndex, Result};
use std::time::{Duration, Instant};

/// Runs the model. Reuses the buffers of a batch between steps.
#[derive(Default)]
pub(crate) struct Executor {
    buffers: BatchBuffers,
}

impl Executor {
    /// Runs one ragged forward over everything that is scheduled: prompts, decodes and
    /// verifications. `piggybacked` are the selections that this forward makes for later drafts;
    /// [`Self::finish_piggybacked`] fetches them. Returns the number of rows and the time in the model.
    pub(crate) fn forward(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
        piggybacked: &mut [PiggybackSelection],
    ) -> Result<(usize, Duration)> {
        let mut batch = BatchBuilder::new(&mut self.buffers, running.len());
        let mut observations = Vec::with_capacity(piggybacked.len());
        let mut piggybacked = piggybacked.iter_mut().peekable();
        for (at, sequence) in running.iter().enumerate().filter(|(_, s)| !s.share.is_empty()) {
            debug_assert!(
                sequence.n_drafted() <= sequence.n_draft_slots(),
                "no draft is longer than promised"
            );
            while let Some(piggyback) = piggybacked.next_if(|piggyback| piggyback.at == at) {
                piggyback.seq = batch.n_seqs();
                observations.push(piggyback.observation());
            }
            let span = Span {
                position: sequence.table.n_tokens(),
                block_table: sequence.table.ids(),
                writes_kv: true,
                view: KvView::default(),
            };
            batch.add(span, sequence.scheduled_inputs());
            if sequence.samples_now() {
                batch.want_logits(1 + sequence.n_drafted());
            }
        }
        let started = Instant::now();
        if !batch.is_empty() {
            let all = LayerMask::All;
            model.forward(ModelIndex::TARGET, &batch.batch(), &all, &mut observations)?;
        }
        Ok((batch.n_rows(), started.elapsed()))
    }

    /// Fetches the selections that the forward has made. Returns the time in the model.
    pub(crate) fn finish_piggybacked(
        &self,
        model: &mut dyn LanguageModel,
        piggybacked: &mut [PiggybackSelection],
    ) -> Result<Duration> {
        let started = Instant::now();
        if !piggybacked.is_empty() {
            let mut observations: Vec<_> =
                piggybacked.iter_mut().map(PiggybackSelection::observation).collect();
            model.finish_observing(&mut observations)?;
        }
        Ok(started.elapsed())
    }

    /// Samples 1 + `n_drafted` tokens for every sequence with its last token in the forward, in the
    /// order of `running`. A sequence that is about to fork also samples one token for each fork,
    /// from the same logit row. Sequences that have finished in the meantime are skipped. Returns the
    /// sampled tokens and the time in the model.
    pub(crate) fn sample(
        &self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
    ) -> Result<(Vec<SampledToken>, Duration)> {
        let mut rows: Vec<SampleRow<'_>> = Vec::with_capacity(self.buffers.n_logit_rows());
        let mut logits_row = 0;
        for sequence in running.iter().filter(|sequence| sequence.samples_now()) {
            let n_drafted = sequence.n_drafted();
            if !sequence.is_finished() {
                let first = sequence.key.index;
                rows.push(sequence.next_row(logits_row));
                let forks = first + 1..=first + sequence.n_forks;
                rows.extend(forks.map(|index| sequence.fork_row(logits_row, index)));
                let drafted = 1..=n_drafted;
                rows.extend(drafted.map(|n| sequence.verified_row(logits_row + n, n)));
            }
            logits_row += 1 + n_drafted;
        }
        if rows.is_empty() {
            return Ok((Vec::new(), Duration::ZERO));
        }
        let started = Instant::now();
        let sampled = model.sample(ModelIndex::TARGET, &rows)?;
        assert_eq!(sampled.len(), rows.len(), "the model samples one token for each row");
        Ok((sampled, started.elapsed()))
    }

    /// Samples without waiting for the device: one token for every sequence with its last token in
    /// the forward, from the sequence's only logit row ([`Sequence::can_run_async`]). Starts the copy
    /// of the tokens to the host. Returns each sequence with its placeholder, in the order of
    /// `running`.
    pub(crate) fn sample_async(
        &self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
    ) -> Result<Vec<(SequenceKey, Placeholder)>> {
        let sampling_now = running.iter().filter(|sequence| sequence.samples_now());
        let rows = sampling_now.clone().enumerate();
        let rows: Vec<SampleRow<'_>> = rows.map(|(at, s)| s.next_row(at)).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let placeholders = model.sample_async(ModelIndex::TARGET, &rows)?;
        model.start_token_copy()?;
        Ok(sampling_now.map(|sequence| sequence.key).zip(placeholders).collect())
    }
}
