//! Selection passes: the latest tokens of a sequence look back once more, and select the part of a
//! view between sinks and tail.

use super::round::DraftRound;
use crate::batch::{BatchBuilder, Span};
use crate::sequence::selection::{observation, pool, unit};
use crate::sequence::view_budget::SelectionRequest;
use galley_backend::{InputToken, KvShape, KvView, LayerMask};
use galley_drafter_host::{Observe, RefreshPolicy, SelectionPolicy, View};
use galley_model::{ModelIndex, Result};

/// A selection to make: the row, the request, and a buffer for the ids.
struct Due {
    at: usize,
    wanted: SelectionRequest,
    ids: Vec<u32>,
}

impl DraftRound<'_> {
    /// Makes the selections of a view that are due. `index` is the view's number in its drafter.
    pub(super) fn select(&mut self, (index, view): (usize, View), rows: &[usize]) -> Result<()> {
        let shape = self.model.target().kv_shape;
        let SelectionPolicy::Observed(observe) = view.middle else { return Ok(()) };
        let mut due = Vec::new();
        for &at in rows {
            let sequence = &mut self.sequences[at];
            let n = sequence.table.n_tokens();
            let wanted = sequence.draft.view_budget(view, shape.block_size).wanted(n);
            let selection = &mut sequence.draft.selections[index];
            if let Some(wanted) = wanted
                && selection.is_due(&observe, n)
            {
                due.push(Due { at, wanted, ids: selection.take_raw(&wanted, &shape) });
            }
            selection.count_round();
        }
        let per_forward = (self.model.row_limits().max_rows / n_queries(observe.when)).max(1);
        while !due.is_empty() {
            let mut now: Vec<_> = due.drain(..due.len().min(per_forward)).collect();
            self.look_back(&observe, &mut now, &shape)?;
            for Due { at, wanted, ids } in now {
                let version = self.state.next_version();
                let sequence = &mut self.sequences[at];
                let (n, unit) = (sequence.table.n_tokens(), unit(&observe, shape.block_size));
                sequence.draft.selections[index].put_back(ids, &wanted, unit, n, version);
            }
        }
        Ok(())
    }

    /// One forward in which the latest tokens of some sequences look back. Writes no KV.
    fn look_back(&mut self, observe: &Observe, due: &mut [Due], shape: &KvShape) -> Result<()> {
        let DraftRound { model, sequences, state, .. } = self;
        let max_rows = model.row_limits().max_rows;
        let mut batch = BatchBuilder::new(&mut state.buffers, due.len());
        let mut observations = Vec::with_capacity(due.len());
        for Due { at, wanted, ids } in due {
            let sequence = &sequences[*at];
            let n = sequence.table.n_tokens();
            let n_rows = n_queries(observe.when).min(n - wanted.to).min(max_rows);
            let (block_table, view) = (sequence.table.ids(), KvView::default());
            let span = Span { position: n - n_rows, block_table, writes_kv: false, view };
            let tokens = sequence.tokens[n - n_rows..n].iter().copied().map(InputToken::known);
            let seq = batch.add(span, tokens);
            let how = (unit(observe, shape.block_size), pool(observe));
            observations.push(observation(seq, n_rows, wanted, how, ids));
        }
        model.forward(ModelIndex::TARGET, &batch.batch(), &LayerMask::All, &mut observations)?;
        model.finish_observing(&mut observations)
    }
}

/// Number of latest tokens that look back in a selection pass. For [`RefreshPolicy::Verify`] the latest
/// token stands in for a verification that has not run yet.
fn n_queries(when: RefreshPolicy) -> usize {
    match when {
        RefreshPolicy::Context { n_queries, .. } => n_queries as usize,
        RefreshPolicy::Verify { .. } => 1,
    }
}
