//! The kinds of KV in random histories.

use galley_blocks::KvKind;

/// The kind of the KV in a table, as [`KvKind`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) model: u32,
    pub(crate) block_factor: u32,
    pub(crate) salt: u64,
}

/// The kinds of the tables: two salts of the target, one of them twice as often, and three draft
/// models. All blocks but those of one draft model have one size, so that a kind taken for another
/// finds something.
const KINDS: [Kind; 6] = [
    Kind { model: 0, block_factor: 1, salt: 0 },
    Kind { model: 0, block_factor: 1, salt: 1 },
    Kind { model: 1, block_factor: 1, salt: 0 },
    Kind { model: 2, block_factor: 1, salt: 0 },
    Kind { model: 3, block_factor: 2, salt: 0 },
    Kind { model: 0, block_factor: 1, salt: 0 },
];

impl Kind {
    /// The kind with a number; every number is valid.
    pub(crate) fn of(n: u8) -> Self {
        KINDS[usize::from(n) % KINDS.len()]
    }

    /// The kind as the manager has it.
    pub(crate) fn of_manager(self) -> KvKind {
        let Kind { model, block_factor, salt } = self;
        match model {
            0 => KvKind::target(salt),
            _ => KvKind::draft_model(model, block_factor, salt),
        }
    }
}
