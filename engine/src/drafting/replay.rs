//! Replays: the latest output under a layer mask, compared with the target's own tokens.

use super::mask::layer_mask;
use super::round::DraftRound;
use super::strategy::DraftStrategy;
use crate::batch::{BatchBuilder, Span};
use galley_backend::sample::SampleRow;
use galley_backend::{InputToken, KvView};
use galley_drafter_host::MaskId;
use galley_model::{ModelIndex, Result};

impl DraftRound<'_> {
    /// Runs the latest `n` tokens of every row under a mask. Counts the sampled tokens that equal
    /// the tokens that followed. Writes no KV.
    pub(super) fn replay(
        &mut self,
        drafter: &mut dyn DraftStrategy,
        id: MaskId,
        n: usize,
        rows: &[usize],
    ) -> Result<()> {
        let DraftRound { model, sequences, state, .. } = self;
        let (layers, version) =
            (layer_mask(Some(id), drafter.masks()), drafter.masks()[id.0 as usize].version);
        let limits = model.row_limits();
        let most = limits.max_logit_rows.min(limits.max_rows);
        let mut batch = BatchBuilder::new(&mut state.buffers, rows.len());
        let (mut sample_rows, mut expected) = (Vec::new(), Vec::new());
        for sequence in rows.iter().map(|&at| &sequences[at]) {
            // A penalty would need the token counts at each of these positions.
            let takes_part = sequence.n_generated > n && !sequence.sampler.has_penalties();
            if n == 0 || !takes_part || batch.n_rows() + n > most {
                continue;
            }
            let end = sequence.table.n_tokens();
            let (block_table, view) = (sequence.table.ids(), KvView::default());
            let span = Span { position: end - n, block_table, writes_kv: false, view };
            batch.add(span, sequence.tokens[end - n..end].iter().copied().map(InputToken::known));
            let first = batch.want_logits(n);
            for (at, position) in (end - n + 1..=end).enumerate() {
                let row = sequence.sampler.row(first + at, position, &[]);
                sample_rows.push(SampleRow { reports: false, ..row });
                expected.push(sequence.tokens[position]);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        model.forward(ModelIndex::TARGET, &batch.batch(), &layers, &mut [])?;
        let sampled = model.sample(ModelIndex::TARGET, &sample_rows)?;
        let pairs = sampled.iter().zip(&expected);
        let n_matched = pairs.filter(|(sampled, token)| sampled.token == **token).count() as u64;
        drafter.add_replay_score(id, version, n_matched, expected.len() as u64);
        Ok(())
    }
}
