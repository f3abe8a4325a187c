//! Turns block tables into a batch: the only file that sees both.

use crate::drafting::PiggybackSelection;
use crate::sequence::{Sequence, SequenceKey};
use galley_backend::sample::{SampleRow, SampledToken};
use galley_backend::{Batch, KvView, LayerMask, SeqSpan};
use galley_model::{LanguageModel, Result};
use std::time::{Duration, Instant};

/// Runs the model. Reuses the buffers of a batch between steps.
#[derive(Default)]
pub(crate) struct Executor {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    logit_rows: Vec<u32>,
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
        self.tokens.clear();
        self.positions.clear();
        self.logit_rows.clear();
        let mut seqs = Vec::with_capacity(running.len());
        let mut observations = Vec::with_capacity(piggybacked.len());
        let mut piggybacked = piggybacked.iter_mut().peekable();
        for (at, sequence) in running.iter().enumerate().filter(|(_, s)| !s.share.is_empty()) {
            let (first, n) = (sequence.table.n_tokens(), sequence.n_scheduled());
            let drafted = sequence.drafted();
            debug_assert!(
                drafted.len() <= sequence.n_draft_slots(),
                "no draft is longer than promised"
            );
            while let Some(piggyback) = piggybacked.next_if(|piggyback| piggyback.at == at) {
                piggyback.seq = seqs.len();
                observations.push(piggyback.observation());
            }
            seqs.push(SeqSpan {
                first_row: self.tokens.len(),
                n_rows: n + drafted.len(),
                block_table: sequence.table.ids(),
                writes_kv: true,
                view: KvView::default(),
            });
            self.tokens.extend_from_slice(&sequence.tokens[first..first + n]);
            self.tokens.extend_from_slice(drafted);
            self.positions.extend(first as u32..(first + n + drafted.len()) as u32);
            if sequence.samples_now() {
                let n_rows = self.tokens.len() as u32;
                self.logit_rows.extend(n_rows - 1 - drafted.len() as u32..n_rows);
            }
        }
        let started = Instant::now();
        if !seqs.is_empty() {
            let batch = Batch {
                tokens: &self.tokens,
                positions: &self.positions,
                seqs: &seqs,
                logit_rows: &self.logit_rows,
            };
            model.forward(&batch, &LayerMask::All, &mut observations)?;
        }
        Ok((self.tokens.len(), started.elapsed()))
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
    /// from the same logit row. Sequences that have ended in the meantime are skipped. Returns the
    /// sampled tokens and the time in the model.
    pub(crate) fn sample(
        &self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
    ) -> Result<(Vec<SampledToken>, Duration)> {
        let mut rows: Vec<SampleRow<'_>> = Vec::with_capacity(self.logit_rows.len());
        let mut logits_row = 0;
        for sequence in running.iter().filter(|sequence| sequence.samples_now()) {
            let (first, drafted) = (sequence.key.index, sequence.drafted());
            if sequence.ended.is_none() {
                let streams = first..=first + sequence.n_forks;
                rows.extend(streams.map(|index| sequence.row(logits_row, index, &[])));
                let later = (1..=drafted.len()).map(|i| (logits_row + i, &drafted[..i]));
                rows.extend(
                    later.map(|(logits_row, before)| sequence.row(logits_row, first, before)),
                );
            }
            logits_row += 1 + drafted.len();
        }
        if rows.is_empty() {
            return Ok((Vec::new(), Duration::ZERO));
        }
        let started = Instant::now();
        let sampled = model.sample(&rows)?;
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
    ) -> Result<Vec<(SequenceKey, u32)>> {
        let sampling_now = running.iter().filter(|sequence| sequence.samples_now());
        let rows = sampling_now.clone().enumerate();
        let rows: Vec<SampleRow<'_>> = rows.map(|(at, s)| s.row(at, s.key.index, &[])).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let names = model.sample_async(&rows)?;
        model.start_token_copy()?;
        Ok(sampling_now.map(|sequence| sequence.key).zip(names).collect())
    }
}
