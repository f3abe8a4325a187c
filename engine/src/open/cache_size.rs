//! The size of the KV cache in tokens: the number that the program can use, within the memory left to the process.

use super::error::OpenError;
use super::memory::{Limit, Room};
use galley_backend::Formats;
use galley_model::LoadOptions;
use galley_model::weights::Checkpoint;

/// Memory of a model beside its KV cache, and memory of a token in the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Bytes of packed weights and activations, and the overhead of allocators and threads.
    pub(crate) fixed_bytes: usize,
    pub(crate) bytes_per_token: usize,
    pub(crate) block_size: usize,
}

/// Bytes beside weights and activations: threads, scratch, requests, and memory that an allocator keeps.
const OVERHEAD_BYTES: usize = 24 << 20;

/// Bytes of address space per thread: its stack, and the heap that the C library reserves for it.
const ADDRESSES_PER_THREAD: usize = 66 << 20;

impl Needs {
    /// The needs of a model on the CPU, with at most `options.max_rows` rows in a step.
    pub(crate) fn new(checkpoint: &Checkpoint, formats: Formats, options: &LoadOptions) -> Self {
        let c = checkpoint.config();
        let (n_q, n_kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        // The residual stream, projections and multipliers are f32. All other rows have the operand format, but
        // in a quantised model: there they are f32, and the widest are signed bytes with scales too.
        let is_quantised = formats.is_quantised(checkpoint.has_blocks());
        let widest = c.hidden_size.max(c.intermediate_size).max(n_q);
        let f32_values = c.hidden_size + n_q + 2 * n_kv + widest;
        let values = c.hidden_size + 2 * n_q + c.intermediate_size;
        let value_bytes = if is_quantised { 4 } else { formats.operands.bytes() };
        let row = f32_values
            .saturating_mul(4)
            .saturating_add(values.saturating_mul(value_bytes))
            .saturating_add(if is_quantised { widest.saturating_mul(2) } else { 0 });
        let logit_row = (c.vocab_size + c.hidden_size).saturating_mul(4);
        let fixed = [
            checkpoint.packed_bytes(formats),
            row.saturating_mul(options.max_rows),
            logit_row.saturating_mul(options.max_logit_rows),
            OVERHEAD_BYTES,
        ];
        Self {
            fixed_bytes: fixed.into_iter().fold(0, usize::saturating_add),
            bytes_per_token: c.kv_values_per_token().saturating_mul(formats.kv.bytes()),
            block_size: options.block_size,
        }
    }

    /// Adds the address space of the threads if `ulimit -v` limits `room`: most of that space is never used.
    pub(crate) fn with_threads(self, n_threads: usize, room: &Room) -> Self {
        let addresses = match room.limit {
            Limit::Process("-v") => n_threads.saturating_mul(ADDRESSES_PER_THREAD),
            _ => 0,
        };
        Self { fixed_bytes: self.fixed_bytes.saturating_add(addresses), ..self }
    }

    /// Tokens of the KV cache: `asked`, or else as many of `wanted` as fit into half of the room and into the memory
    /// that the model leaves, but at least one block.
    ///
    /// # Errors
    ///
    /// The model or the `asked` tokens exceed a limit of the process or of its control group: the system would kill the
    /// process in the middle of a request. The free memory of the machine does not limit `asked`: it changes over time,
    /// and the memory of a token is touched only when the token is computed.
    pub(crate) fn tokens(
        &self,
        asked: Option<usize>,
        wanted: usize,
        room: &Room,
    ) -> Result<usize, OpenError> {
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
            return Err(OpenError::Memory { account: account() });
        }
        let refused = |asked: usize, reason| {
            let (name, value) = ("kv_cache_tokens", asked.to_string());
            Err(OpenError::Setting { name, value, reason })
        };
        match asked {
            Some(0) => refused(0, "the cache needs at least one block".into()),
            Some(asked) if is_strict && asked > fitting => {
                refused(asked, format!("{fitting} tokens fit. {}", account()))
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
        for part in ["kv_cache_tokens 7489", "7488 tokens fit", "450 MB", "/group", "300 MB"] {
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
