//! Builds the batches of all forwards: the target's, draft chains, selections and replays.

use galley_backend::{Batch, InputToken, KvView, SeqSpan};

/// The buffers of a batch, reused by the next one.
#[derive(Debug, Default)]
pub(crate) struct BatchBuffers {
    tokens: Vec<InputToken>,
    positions: Vec<u32>,
    logit_rows: Vec<u32>,
}

impl BatchBuffers {
    /// Logit rows of the latest batch.
    pub(crate) fn n_logit_rows(&self) -> usize {
        self.logit_rows.len()
    }
}

/// The rows of one sequence, except their tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    /// Position of the first row.
    pub(crate) position: usize,
    /// Blocks of the model that runs; they cover every row.
    pub(crate) block_table: &'a [u32],
    /// Whether keys and values of the rows are stored.
    pub(crate) writes_kv: bool,
    /// The cached tokens that the rows attend to.
    pub(crate) view: KvView<'a>,
}

/// A batch in the making: sequences are added one after another, with adjacent rows.
#[derive(Debug)]
pub(crate) struct BatchBuilder<'a> {
    buffers: &'a mut BatchBuffers,
    seqs: Vec<SeqSpan<'a>>,
}

impl<'a> BatchBuilder<'a> {
    /// An empty batch, for about `n_seqs` sequences.
    pub(crate) fn new(buffers: &'a mut BatchBuffers, n_seqs: usize) -> Self {
        buffers.tokens.clear();
        buffers.positions.clear();
        buffers.logit_rows.clear();
        BatchBuilder { buffers, seqs: Vec::with_capacity(n_seqs) }
    }

    /// Adds a sequence with one row for each of `tokens`. Returns its index in the batch.
    pub(crate) fn add(
        &mut self,
        span: Span<'a>,
        tokens: impl IntoIterator<Item = InputToken>,
    ) -> usize {
        let BatchBuffers { tokens: rows, positions, .. } = &mut *self.buffers;
        let first_row = rows.len();
        rows.extend(tokens);
        let n_rows = rows.len() - first_row;
        positions.extend((span.position..span.position + n_rows).map(|position| position as u32));
        let Span { block_table, writes_kv, view, .. } = span;
        self.seqs.push(SeqSpan { first_row, n_rows, block_table, writes_kv, view });
        self.seqs.len() - 1
    }

    /// Asks for the logits of the last `n` rows. Returns the first of these logit rows.
    pub(crate) fn want_logits(&mut self, n: usize) -> usize {
        let n_rows = self.n_rows();
        let first = self.buffers.logit_rows.len();
        self.buffers.logit_rows.extend((n_rows - n..n_rows).map(|row| row as u32));
        first
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.buffers.tokens.len()
    }

    pub(crate) fn n_seqs(&self) -> usize {
        self.seqs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// The finished batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            tokens: &self.buffers.tokens,
            positions: &self.buffers.positions,
            seqs: &self.seqs,
            logit_rows: &self.buffers.logit_rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_sequences_are_adjacent_and_logit_rows_are_counted() {
        let mut buffers = BatchBuffers::default();
        let tokens = |ids: &[u32]| ids.iter().copied().map(InputToken::known).collect::<Vec<_>>();
        for _ in 0..2 {
            let mut batch = BatchBuilder::new(&mut buffers, 2);
            assert!(batch.is_empty());
            let span = |position| Span {
                position,
                block_table: &[4, 2],
                writes_kv: true,
                view: KvView::default(),
            };
            assert_eq!(batch.add(span(3), tokens(&[7, 8, 9])), 0);
            assert_eq!(batch.want_logits(2), 0);
            assert_eq!(batch.add(span(0), tokens(&[5])), 1);
            assert_eq!(batch.want_logits(1), 2);
            assert_eq!((batch.n_rows(), batch.n_seqs()), (4, 2));
            let batch = batch.batch();
            assert_eq!(
                (batch.tokens, batch.positions),
                (&*tokens(&[7, 8, 9, 5]), &[3, 4, 5, 0][..])
            );
            assert_eq!(batch.logit_rows, [1, 2, 3]);
            assert_eq!((batch.seqs[1].first_row, batch.seqs[1].n_rows), (3, 1));
        }
    }
}
