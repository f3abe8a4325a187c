//! The budget of one step: rows of its forward, and logit rows.
//!
//! A row is promised before it is spent. A [`Budget`] begins at the limits of the device and hands
//! out [`Share`]s. A share that is not empty comes from a budget, cannot be copied, and says how
//! many rows its sequence has in the step. So a step cannot have more rows than the device takes.
//!
//! One logit row is counted for every sampled token: in a sequence with its last token in the step,
//! one for the sequence itself, one for each fork, and one for each draft token. Forks read the
//! same logit row as their first sequence, so the count is never too small.

/// Rows of a step that are not promised yet.
#[derive(Debug)]
pub(crate) struct Budget {
    n_rows: usize,
    n_logit_rows: usize,
}

/// Rows that a sequence asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Rows that the sequence can use now.
    pub(crate) n_rows: usize,
    /// Tokens without computed KV. With this many rows, the sequence reaches its last token.
    pub(crate) n_todo: usize,
    /// Tokens to sample after the last one: for the sequence and for its future forks.
    pub(crate) n_streams: usize,
}

/// Rows of one step that are promised to a sequence.
#[derive(Debug, Default)]
pub(crate) struct Share {
    n_rows: usize,
    n_draft_rows: usize,
    n_logit_rows: usize,
}

impl Share {
    /// Rows for known tokens.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Rows for draft tokens, after the rows of known tokens.
    pub(crate) fn n_draft_rows(&self) -> usize {
        self.n_draft_rows
    }

    /// Whether the sequence has no rows in the step.
    pub(crate) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }
}

impl Budget {
    /// A step of at most `n_rows` rows and at most `n_logit_rows` logit rows.
    pub(crate) fn new(n_rows: usize, n_logit_rows: usize) -> Self {
        Budget { n_rows, n_logit_rows }
    }

    /// Whether there are rows left.
    pub(crate) fn has_rows(&self) -> bool {
        self.n_rows > 0
    }

    /// `n_rows`, or all rows that are left if they are fewer.
    pub(crate) fn at_most(&self, n_rows: usize) -> usize {
        n_rows.min(self.n_rows)
    }

    /// Promises as much of a wish as is left. Without enough logit rows, a sequence stops before
    /// its last token.
    #[must_use]
    pub(crate) fn promise(&mut self, wish: Wish) -> Share {
        let mut n_rows = wish.n_rows.min(self.n_rows).min(wish.n_todo);
        if n_rows == wish.n_todo && wish.n_streams > self.n_logit_rows {
            n_rows = n_rows.saturating_sub(1);
        }
        let n_logit_rows = if n_rows == wish.n_todo { wish.n_streams } else { 0 };
        self.n_rows -= n_rows;
        self.n_logit_rows -= n_logit_rows;
        Share { n_rows, n_draft_rows: 0, n_logit_rows }
    }

    /// The longest draft that one of `n_sequences` may have: an equal part of the rows that are left.
    pub(crate) fn draft_length(&self, n_sequences: usize) -> usize {
        self.n_rows.min(self.n_logit_rows).div_ceil(n_sequences.max(1))
    }

    /// Adds rows for `n_tokens` draft tokens to a share that reaches the last token. Adds none if
    /// fewer are left.
    pub(crate) fn promise_draft(&mut self, share: &mut Share, n_tokens: usize) {
        if n_tokens <= self.n_rows.min(self.n_logit_rows) && share.n_logit_rows > 0 {
            self.n_rows -= n_tokens;
            self.n_logit_rows -= n_tokens;
            share.n_draft_rows += n_tokens;
            share.n_logit_rows += n_tokens;
        }
    }

    /// Returns the rows of a share to the budget.
    pub(crate) fn take_back(&mut self, share: Share) {
        self.n_rows += share.n_rows + share.n_draft_rows;
        self.n_logit_rows += share.n_logit_rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(n_rows: usize, n_todo: usize, n_streams: usize) -> Wish {
        Wish { n_rows, n_todo, n_streams }
    }

    #[test]
    fn what_is_promised_is_no_longer_there() {
        let mut budget = Budget::new(10, 3);
        let prompt = budget.promise(wish(6, 8, 1));
        assert_eq!((prompt.n_rows(), prompt.n_logit_rows), (6, 0), "the prompt goes on later");
        let mut decode = budget.promise(wish(1, 1, 1));
        budget.promise_draft(&mut decode, 3);
        assert_eq!(decode.n_draft_rows(), 0, "two rows of logits are left");
        budget.promise_draft(&mut decode, 2);
        assert_eq!((decode.n_rows(), decode.n_draft_rows(), decode.n_logit_rows), (1, 2, 3));
        assert_eq!((budget.n_rows, budget.n_logit_rows), (1, 0));
        assert!(
            budget.promise(wish(1, 1, 1)).is_empty(),
            "no logit row is left for the token after it"
        );
        assert_eq!(budget.promise(wish(5, 5, 1)).n_rows(), 1);
        assert!(!budget.has_rows());
        budget.take_back(decode);
        assert_eq!((budget.n_rows, budget.n_logit_rows), (3, 3));
    }

    #[test]
    fn a_prompt_without_a_logit_row_stops_before_its_last_token() {
        let mut budget = Budget::new(10, 3);
        assert_eq!(budget.promise(wish(5, 5, 4)).n_rows(), 4);
        assert_eq!(budget.promise(wish(5, 5, 3)).n_rows(), 5);
        assert_eq!((budget.n_rows, budget.n_logit_rows), (1, 0));
    }

    #[test]
    fn drafts_share_what_is_left() {
        assert_eq!(Budget::new(10, 7).draft_length(3), 3);
        assert_eq!(Budget::new(2, 7).draft_length(3), 1);
        assert_eq!(Budget::new(0, 7).draft_length(3), 0);
        assert_eq!(Budget::new(9, 7).draft_length(0), 7);
    }
}
