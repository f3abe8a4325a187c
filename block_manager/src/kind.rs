//! The kind of the KV in a table: the model that computed it, and the salt under which it is shared.

/// The kind of the KV in a table. Tables share blocks only with tables of the same kind.
///
/// Models of one pool have blocks of the same bytes. The KV of a draft model's token is smaller, so
/// a block has room for more tokens of a draft model than of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvKind {
    /// 0 is the target.
    model: u32,
    /// Tokens in a block, in multiples of the target's.
    block_factor: u32,
    salt: u64,
}

impl KvKind {
    /// KV of the target. Tables of different salts share nothing (one salt for each adapter, and for
    /// each tenant whose requests must stay private).
    pub const fn target(salt: u64) -> Self {
        KvKind { model: 0, block_factor: 1, salt }
    }

    /// KV of a draft model under the same salts. `number` distinguishes the draft models of a pool and
    /// counts from 1. A block holds `block_factor` times as many tokens as a block of the target (at
    /// least 1).
    pub const fn draft_model(number: u32, block_factor: u32, salt: u64) -> Self {
        assert!(number > 0, "number 0 is the target");
        assert!(block_factor > 0, "a block holds at least one token");
        KvKind { model: number, block_factor, salt }
    }

    /// Whether the KV is a draft model's.
    pub const fn is_of_draft_model(&self) -> bool {
        self.model > 0
    }

    pub(crate) const fn model(&self) -> u32 {
        self.model
    }

    /// The salt under which the KV is shared.
    pub const fn salt(&self) -> u64 {
        self.salt
    }

    /// Tokens in a block, if a block of the target has `block_size`.
    pub(crate) const fn tokens_per_block(&self, block_size: usize) -> usize {
        block_size * self.block_factor as usize
    }
}

impl Default for KvKind {
    fn default() -> Self {
        KvKind::target(0)
    }
}
