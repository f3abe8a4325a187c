//! One round of one drafter: asks it for drafts and executes the work that it enqueues.

use super::chain::Chain;
use super::lookup::lookup;
use super::selection::{ViewSelection, observation, pool, unit};
use super::{Drafting, n_queries, view_budget};
use crate::sequence::Sequence;
use galley_backend::{Batch, KvShape, KvView, LayerMask, SeqSpan};
use galley_drafter_host::{
    DraftRow, Mask, MaskId, Observe, Outcome, Program, SelectionPolicy, ViewId, Work,
};
use galley_model::{LanguageModel, Result};
use std::time::Instant;

/// Buffers of batches, kept between rounds.
#[derive(Default)]
pub(super) struct Memory {
    /// Indices in `running` of this round's sequences.
    rows: Vec<usize>,
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) logit_rows: Vec<u32>,
    /// `0, 1, 2, ...`: the indices of blocks from the start of a sequence.
    pub(super) ascending: Vec<u32>,
}

impl Drafting {
    /// Asks drafter `index` for drafts and executes the work that it enqueues.
    pub(super) fn round(
        &mut self,
        index: usize,
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        let mut rows = std::mem::take(&mut self.memory.rows);
        rows.clear();
        rows.extend((0..running.len()).filter(|&at| {
            let sequence = &running[at];
            let drafter = sequence.draft.as_ref().map(|draft| draft.settings.drafter);
            sequence.n_draft_slots() > 0 && drafter == Some(index)
        }));
        let result = match rows.is_empty() {
            true => Ok(()),
            false => self.round_of(index, &rows, model, running),
        };
        self.memory.rows = rows;
        result
    }

    fn round_of(
        &mut self,
        index: usize,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        self.introduce(index, rows, model, running)?;
        let mut program = std::mem::take(&mut self.program);
        let known: Vec<DraftRow<'_>> = rows.iter().map(|&at| running[at].as_draft_row()).collect();
        let outcome = self.drafters[index].guess(&known, &mut program);
        drop(known);
        // A drafter without a draft may still have enqueued replays.
        let done = match outcome {
            Outcome::Ready | Outcome::NoGuess => self.run(index, &program, rows, model, running),
            Outcome::Failed => Ok(()),
            Outcome::SetAside => {
                for &at in rows {
                    running[at].draft.as_mut().expect("rows have drafts").is_off = true;
                }
                Ok(())
            }
        };
        self.program = program;
        done
    }

    /// Executes enqueued work, in order.
    fn run(
        &mut self,
        index: usize,
        program: &Program,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        program
            .work
            .iter()
            .try_for_each(|work| self.work(index, work, &program.pushed, rows, model, running))
    }

    /// Tells a drafter of the sequences that are new to it, and executes the work that it enqueues.
    fn introduce(
        &mut self,
        index: usize,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        let is_new = |at: &usize| running[*at].draft.as_ref().is_some_and(|draft| !draft.is_known);
        let new_rows: Vec<usize> = rows.iter().copied().filter(is_new).collect();
        if new_rows.is_empty() {
            return Ok(());
        }
        let new: Vec<DraftRow<'_>> =
            new_rows.iter().map(|&at| running[at].as_draft_row()).collect();
        let mut program = std::mem::take(&mut self.program);
        let outcome = self.drafters[index].after_prefill(&new, &mut program);
        drop(new);
        let n_views = self.drafters[index].views().len();
        for &at in rows {
            let draft = running[at].draft.as_mut().expect("rows have drafts");
            draft.is_known = true;
            draft.selections.resize_with(n_views, ViewSelection::default);
        }
        let done = match outcome {
            Outcome::Ready | Outcome::NoGuess => {
                self.run(index, &program, &new_rows, model, running)
            }
            Outcome::Failed | Outcome::SetAside => Ok(()),
        };
        self.program = program;
        done
    }

    fn work(
        &mut self,
        index: usize,
        work: &Work,
        pushed: &[u32],
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        match *work {
            Work::Chain { model: chain_model, view, mask } => {
                if let Some(view) = view {
                    let started = Instant::now();
                    self.select(index, view, rows, model, running)?;
                    self.times.selecting += started.elapsed();
                }
                let started = Instant::now();
                let chain = Chain { model: chain_model, view, mask };
                self.chain(index, chain, rows, model, running)?;
                self.times.drafting += started.elapsed();
            }
            Work::Lookup { min_n, max_n } => {
                for &at in rows {
                    let sequence = &mut running[at];
                    let n = sequence.n_draft_slots();
                    let draft = sequence.draft.as_mut().expect("rows have drafts");
                    if draft.tokens.is_empty() {
                        let found = lookup(&sequence.tokens, min_n as usize, max_n as usize, n);
                        draft.tokens.extend_from_slice(found);
                    }
                }
            }
            Work::Push { row, first, n_tokens } => {
                let Some(&at) = rows.get(row as usize) else { return Ok(()) };
                let n = (n_tokens as usize).min(running[at].n_draft_slots());
                let tokens = &pushed[first as usize..][..n];
                let draft = running[at].draft.as_mut().expect("rows have drafts");
                draft.clear();
                draft.tokens.extend_from_slice(tokens);
            }
            Work::Replay { mask, n_tokens } => {
                self.replay(index, mask, n_tokens as usize, rows, model, running)?;
            }
        }
        Ok(())
    }

    /// Makes the selections of a view that are due: the latest tokens of each such row look back
    /// once more.
    fn select(
        &mut self,
        index: usize,
        id: ViewId,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &mut [Sequence],
    ) -> Result<()> {
        let shape = model.kv_shape();
        let view = self.drafters[index].views()[id.0 as usize];
        let SelectionPolicy::Observed(observe) = view.middle else { return Ok(()) };
        let mut due = Vec::new();
        for &at in rows {
            let sequence = &mut running[at];
            let n = sequence.table.n_tokens();
            let draft = sequence.draft.as_mut().expect("rows have drafts");
            let view_budget = view_budget(view, &draft.settings, shape.block_size);
            let selection = &mut draft.selections[id.0 as usize];
            if let Some(wanted) = view_budget.wanted(n)
                && selection.is_due(&observe, n)
            {
                due.push((at, wanted, selection.take_raw(&wanted, &shape)));
            }
            selection.count_round();
        }
        let per_forward = (model.max_rows() / n_queries(observe.when)).max(1);
        while !due.is_empty() {
            let mut now: Vec<_> = due.drain(..due.len().min(per_forward)).collect();
            self.look_back(&observe, &mut now, model, running, &shape)?;
            for (at, wanted, raw) in now {
                let n = running[at].table.n_tokens();
                let draft = running[at].draft.as_mut().expect("rows have drafts");
                let unit = unit(&observe, shape.block_size);
                self.n_selections += 1;
                let version = self.n_selections;
                draft.selections[id.0 as usize].put_back(raw, &wanted, unit, n, version);
            }
        }
        Ok(())
    }

    /// One forward in which the latest tokens of some sequences look back. Writes no KV.
    fn look_back(
        &mut self,
        observe: &Observe,
        due: &mut [(usize, super::SelectionRequest, Vec<u32>)],
        model: &mut dyn LanguageModel,
        running: &[Sequence],
        shape: &KvShape,
    ) -> Result<()> {
        let Memory { tokens, positions, .. } = &mut self.memory;
        tokens.clear();
        positions.clear();
        let mut seqs = Vec::with_capacity(due.len());
        let mut observations = Vec::with_capacity(due.len());
        for (at, wanted, raw) in due {
            let sequence = &running[*at];
            let n = sequence.table.n_tokens();
            let n_rows = n_queries(observe.when).min(n - wanted.to).min(model.max_rows());
            let span = SeqSpan {
                first_row: tokens.len(),
                n_rows,
                block_table: sequence.table.ids(),
                view: KvView::default(),
                writes_kv: false,
            };
            tokens.extend_from_slice(&sequence.tokens[n - n_rows..n]);
            positions.extend((n - n_rows) as u32..n as u32);
            let how = (unit(observe, shape.block_size), pool(observe));
            observations.push(observation(seqs.len(), n_rows, wanted, how, raw));
            seqs.push(span);
        }
        let batch = Batch { tokens, positions, seqs: &seqs, logit_rows: &[] };
        model.forward(&batch, &LayerMask::All, &mut observations)?;
        model.finish_observing(&mut observations)
    }

    /// Runs the latest output of every row under a mask. Counts the sampled tokens that equal the
    /// tokens that followed.
    fn replay(
        &mut self,
        index: usize,
        id: MaskId,
        n: usize,
        rows: &[usize],
        model: &mut dyn LanguageModel,
        running: &[Sequence],
    ) -> Result<()> {
        let mask = &self.drafters[index].masks()[id.0 as usize];
        let (layers, version) = (layer_mask(Some(id), self.drafters[index].masks()), mask.version);
        let Memory { tokens, positions, logit_rows, .. } = &mut self.memory;
        tokens.clear();
        positions.clear();
        logit_rows.clear();
        let most = model.max_logit_rows().min(model.max_rows());
        let (mut seqs, mut sample_rows, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in rows.iter().map(|&at| &running[at]) {
            // A penalty would need the token counts at each of these positions.
            let takes_part = sequence.n_generated() > n && !sequence.has_penalties();
            if n == 0 || !takes_part || tokens.len() + n > most {
                continue;
            }
            let end = sequence.table.n_tokens();
            let first_row = tokens.len();
            seqs.push(SeqSpan {
                first_row,
                n_rows: n,
                block_table: sequence.table.ids(),
                view: KvView::default(),
                writes_kv: false,
            });
            for position in end - n..end {
                logit_rows.push(tokens.len() as u32);
                sample_rows.push(sequence.replay_row(tokens.len(), position + 1));
                tokens.push(sequence.tokens[position]);
                positions.push(position as u32);
                expected.push(sequence.tokens[position + 1]);
            }
        }
        if seqs.is_empty() {
            return Ok(());
        }
        let batch = Batch { tokens, positions, seqs: &seqs, logit_rows };
        model.forward(&batch, &layers, &mut [])?;
        let sampled = model.sample(&sample_rows)?;
        let n_matched = sampled
            .iter()
            .zip(&expected)
            .filter(|(sampled, token)| sampled.token == **token)
            .count();
        let (n_matched, n_compared) = (n_matched as u64, expected.len() as u64);
        self.drafters[index].add_replay_score(id, version, n_matched, n_compared);
        Ok(())
    }
}

pub(super) fn layer_mask(id: Option<MaskId>, masks: &[Mask]) -> LayerMask<'_> {
    match id {
        None => LayerMask::All,
        Some(id) => {
            let Mask { attention, mlp, .. } = &masks[id.0 as usize];
            LayerMask::Only { attention, mlp }
        }
    }
}
