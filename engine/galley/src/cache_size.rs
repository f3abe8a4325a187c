//! How many tokens the KV cache holds: what the command can use, within what the process may take.

use crate::memory::{Limit, Room};
use anyhow::{Result, bail};
use galley_backend::Dtype;
use galley_model::LoadOptions;
use galley_model::config::ModelConfig;

/// What a model takes beside its KV cache, and what a token takes in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Packed weights, activations, and what allocators and threads take beside them, bytes.
    pub(crate) fixed_bytes: usize,
    pub(crate) bytes_per_token: usize,
    pub(crate) block_size: usize,
}

/// Beside weights and activations: threads, scratch, requests, and what an allocator keeps.
const OVERHEAD_BYTES: usize = 24 << 20;

/// Address space that a thread takes: its stack, and the heap that the C library reserves for it.
const ADDRESSES_PER_THREAD: usize = 66 << 20;

impl Needs {
    /// Those of a model that computes on the CPU, with at most the rows of `options` a step.
    pub(crate) fn new(c: &ModelConfig, dtype: Dtype, options: &LoadOptions) -> Self {
        let bytes = dtype.bytes();
        let (n_q, n_kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        // f32 rows: the residual stream, projections, multipliers. Rows in the format of weights: all others.
        let widest = c.hidden_size.max(c.intermediate_size).max(n_q);
        let f32_values = c.hidden_size + n_q + 2 * n_kv + widest;
        let values = c.hidden_size + 2 * n_q + c.intermediate_size;
        let row = f32_values.saturating_mul(4).saturating_add(values.saturating_mul(bytes));
        let logit_row = (c.vocab_size + c.hidden_size).saturating_mul(4);
        let fixed = [
            c.parameters().saturating_mul(bytes),
            row.saturating_mul(options.max_rows),
            logit_row.saturating_mul(options.max_logit_rows),
            OVERHEAD_BYTES,
        ];
        Self {
            fixed_bytes: fixed.into_iter().fold(0, usize::saturating_add),
            bytes_per_token: c.kv_values_per_token().saturating_mul(bytes),
            block_size: options.block_size,
        }
    }

    /// The same where addresses are what is short: threads have many that they do not use.
    pub(crate) fn with_threads(self, n_threads: usize, room: &Room) -> Self {
        let addresses = match room.limit {
            Limit::Process("-v") => n_threads.saturating_mul(ADDRESSES_PER_THREAD),
            _ => 0,
        };
        Self { fixed_bytes: self.fixed_bytes.saturating_add(addresses), ..self }
    }

    /// Tokens of the KV cache: `asked`, or as many of `wanted` as fit into half of the room and into what the model
    /// leaves of it.
    ///
    /// # Errors
    ///
    /// A limit of the process or of its control group that the model, or what was asked for, would break: the system
    /// would end the process in the middle of a request. What a machine has free is not held against a number that was
    /// asked for: it changes, and a token's memory is taken when the token comes.
    pub(crate) fn tokens(&self, asked: Option<usize>, wanted: usize, room: &Room) -> Result<usize> {
        let left = room.bytes.saturating_sub(self.fixed_bytes);
        let whole_blocks =
            |bytes: usize| bytes / self.bytes_per_token / self.block_size * self.block_size;
        let fitting = whole_blocks(left);
        let is_strict = matches!(room.limit, Limit::Group(_) | Limit::Process(_));
        let account = || {
            format!(
                "{room}, and weights and working memory take {} MB",
                self.fixed_bytes / 1_000_000
            )
        };
        if is_strict && fitting == 0 {
            bail!("the model leaves no memory for a KV cache: {}", account());
        }
        match asked {
            Some(0) => bail!("--kv-cache-tokens 0: the cache needs at least one block"),
            Some(asked) if is_strict && asked > fitting => {
                bail!("--kv-cache-tokens {asked}: {fitting} tokens fit. {}", account())
            }
            Some(asked) => Ok(asked),
            None => Ok(wanted.min(whole_blocks(room.bytes / 2)).min(fitting).max(self.block_size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const MB: usize = 1_000_000;

    /// Weights of 300 MB, and blocks of 16 tokens of 20 kB.
    fn needs() -> Needs {
        Needs { fixed_bytes: 300 * MB, bytes_per_token: 20_000, block_size: 16 }
    }

    fn group(bytes: usize) -> Room {
        Room { bytes, limit: Limit::Group(PathBuf::from("/group")) }
    }

    fn machine(bytes: usize) -> Room {
        Room { bytes, limit: Limit::Machine }
    }

    #[test]
    fn case_23_the_cache_is_what_the_weights_leave_of_a_limit() {
        let tokens = |wanted, room: &Room| needs().tokens(None, wanted, room).expect("it fits");
        assert_eq!(tokens(8_192, &group(450 * MB)), 7_488, "150 MB, in whole blocks");
        assert_eq!(tokens(1_024, &group(450 * MB)), 1_024);
        assert_eq!(tokens(1 << 20, &machine(1_000 * MB)), 24_992, "half of it, in whole blocks");
        assert_eq!(tokens(1_024, &machine(100 * MB)), 16, "a machine may have more than it says");
    }

    #[test]
    fn case_23_what_a_limit_does_not_hold_is_refused_with_what_it_does() {
        let error = |asked, room: &Room| {
            needs().tokens(asked, 1_024, room).expect_err("too much").to_string()
        };
        let text = error(Some(7_489), &group(450 * MB));
        for part in ["--kv-cache-tokens 7489", "7488 tokens fit", "450 MB", "/group", "300 MB"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(needs().tokens(Some(7_488), 0, &group(450 * MB)).expect("it fits"), 7_488);
        assert!(error(None, &group(300 * MB)).contains("leaves no memory"));
        assert!(error(Some(16), &group(0)).contains("leaves no memory"));
        assert!(error(Some(0), &machine(450 * MB)).contains("at least one block"));
        let limit = Room { bytes: 301 * MB, limit: Limit::Process("-v") };
        assert!(error(Some(1_000), &limit).contains("`ulimit -v`"));
    }

    #[test]
    fn what_was_asked_for_is_not_held_against_a_machine() {
        assert_eq!(needs().tokens(Some(1 << 30), 0, &machine(MB)).expect("allowed"), 1 << 30);
    }

    #[test]
    fn threads_count_where_addresses_are_short() {
        let limit = Room { bytes: MB, limit: Limit::Process("-v") };
        assert_eq!(needs().with_threads(4, &group(MB)).fixed_bytes, 300 * MB);
        assert!(needs().with_threads(4, &limit).fixed_bytes > 500 * MB);
    }
}
