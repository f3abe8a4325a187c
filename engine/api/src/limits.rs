//! The ranges of sizes in requests and settings. Sizes are bounded so that arithmetic on them cannot overflow.

pub use galley_backend::cpu::MAX_THREADS;

/// Most bytes of one body of JSON: longer than any context that is written in it.
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// Most tokens or rows: more than any machine holds.
pub const MAX_COUNT: u64 = u32::MAX as u64;
/// Most sequences that run together.
pub const MAX_SEQUENCES: u64 = 1 << 20;
/// Most draft tokens per round: no draft of this length is accepted to its end.
pub const MAX_DRAFT_LENGTH: u64 = 1024;
/// Most bytes of suffix indexes: the memory of a large machine.
pub const MAX_SUFFIX_BYTES: u64 = 1 << 40;
/// Most tokens in a KV block: as many as most contexts have.
pub const MAX_BLOCK_TOKENS: u64 = 1 << 16;
/// Tokens of a KV block are a multiple of this number.
pub const BLOCK_MULTIPLE: u64 = 16;
/// The least share of a GPU's memory.
pub const MIN_MEMORY_SHARE: f64 = 0.05;
