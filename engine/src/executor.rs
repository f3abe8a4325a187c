//! From block tables to a batch: the only place that sees both.

use crate::sequence::Sequence;
use galley_backend::sample::{Pick, Row};
use galley_backend::{Batch, KvView, LayerMask, SeqSpan};
use galley_model::{LanguageModel, Result};
use std::time::{Duration, Instant};

/// Runs the model. Keeps the memory of a batch between steps.
#[derive(Default)]
pub(crate) struct Executor {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    logit_rows: Vec<u32>,
}

impl Executor {
    /// One ragged forward over all that is scheduled, prompts and decodes alike. Returns its rows and
    /// the time that the model took.
    pub(crate) fn forward(
        &mut self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
        copies: &[(u32, u32)],
    ) -> Result<(usize, Duration)> {
        self.tokens.clear();
        self.positions.clear();
        self.logit_rows.clear();
        let mut seqs = Vec::with_capacity(running.len());
        for sequence in scheduled(running) {
            let (first, n) = (sequence.table.n_tokens(), sequence.n_scheduled);
            seqs.push(SeqSpan {
                first_row: self.tokens.len(),
                n_rows: n,
                block_table: sequence.table.ids(),
                view: KvView::default(),
            });
            self.tokens.extend_from_slice(&sequence.tokens[first..first + n]);
            self.positions.extend(first as u32..(first + n) as u32);
            if sequence.picks_now() {
                self.logit_rows.push(self.tokens.len() as u32 - 1);
            }
        }
        let begin = Instant::now();
        if !copies.is_empty() {
            model.copy_blocks(copies)?;
        }
        if !seqs.is_empty() {
            let batch = Batch {
                tokens: &self.tokens,
                positions: &self.positions,
                seqs: &seqs,
                logit_rows: &self.logit_rows,
            };
            model.forward(&batch, &LayerMask::All)?;
        }
        Ok((self.tokens.len(), begin.elapsed()))
    }

    /// Picks a token for every stream whose last token was in the forward: in the order of
    /// `running`, and `n` of them, from the same logits, where `n` streams begin. Returns the picks and
    /// the time that the model took.
    pub(crate) fn sample(
        &self,
        model: &mut dyn LanguageModel,
        running: &[Sequence],
    ) -> Result<(Vec<Pick>, Duration)> {
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(self.logit_rows.len());
        for (i, sequence) in scheduled(running).filter(|s| s.picks_now()).enumerate() {
            let first = sequence.key.index;
            rows.extend((first..=first + sequence.n_forks).map(|index| sequence.row(i, index)));
        }
        if rows.is_empty() {
            return Ok((Vec::new(), Duration::ZERO));
        }
        let begin = Instant::now();
        let picks = model.sample(&rows)?;
        assert_eq!(picks.len(), rows.len(), "the model picked one token for each row");
        Ok((picks, begin.elapsed()))
    }
}

fn scheduled(running: &[Sequence]) -> impl Iterator<Item = &Sequence> {
    running.iter().filter(|sequence| sequence.n_scheduled > 0)
}
