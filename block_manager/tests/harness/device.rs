//! A simulated device: it stores the content of the slots and computes nothing.

use super::Kind;
use std::ops::Range;

/// A slot holds the KV of one token, which depends on the model and on all tokens before it. Here the
/// KV is a number that depends on them too, so that the right token in the wrong context counts as
/// wrong. A block of a draft model has more slots.
pub(crate) struct Device {
    slots: Vec<u64>,
    /// Slots of a block, for the target.
    block_size: usize,
    n_scribbles: u64,
}

/// The KV of a token after a prefix whose last KV is `before`.
fn kv(before: u64, token: u32) -> u64 {
    (before ^ (u64::from(token) + 1)).wrapping_mul(0xd134_2543_de82_ef95).rotate_left(32)
}

/// The most slots of a block, in multiples of the target's.
const MOST: usize = 2;

/// The value before the first token.
fn root(kind: Kind) -> u64 {
    kv(kind.salt, kind.model)
}

impl Device {
    pub(crate) fn new(n_blocks: usize, block_size: usize) -> Self {
        Device { slots: vec![0; n_blocks * block_size * MOST], block_size, n_scribbles: 0 }
    }

    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let stride = self.block_size * MOST;
        let from = from as usize * stride;
        self.slots.copy_within(from..from + stride, to as usize * stride);
    }

    /// Writes values that are no token's KV, as rejected draft tokens do.
    pub(crate) fn scribble(
        &mut self,
        ids: &[u32],
        kind: Kind,
        positions: Range<usize>,
    ) -> Result<(), String> {
        for position in positions {
            self.n_scribbles += 1;
            let slot = self.slot(ids, kind, position)?;
            self.slots[slot] = u64::MAX - self.n_scribbles;
        }
        Ok(())
    }

    /// Writes the KV of `tokens[start..]` to their slots.
    pub(crate) fn write(
        &mut self,
        ids: &[u32],
        kind: Kind,
        tokens: &[u32],
        start: usize,
    ) -> Result<(), String> {
        let mut value = root(kind);
        for (position, &token) in tokens.iter().enumerate() {
            value = kv(value, token);
            if position >= start {
                let slot = self.slot(ids, kind, position)?;
                self.slots[slot] = value;
            }
        }
        Ok(())
    }

    /// Checks that the slots, read through a table's ids, hold the KV of these tokens.
    pub(crate) fn expect(&self, ids: &[u32], kind: Kind, tokens: &[u32]) -> Result<(), String> {
        let mut value = root(kind);
        for (position, &token) in tokens.iter().enumerate() {
            value = kv(value, token);
            if self.slots[self.slot(ids, kind, position)?] != value {
                return Err(format!("blocks {ids:?} do not hold {tokens:?} at {position}"));
            }
        }
        Ok(())
    }

    fn slot(&self, ids: &[u32], kind: Kind, position: usize) -> Result<usize, String> {
        let size = self.block_size * kind.block_factor as usize;
        let id = ids.get(position / size);
        let &id = id.ok_or(format!("position {position} has no slot in blocks {ids:?}"))?;
        Ok(id as usize * self.block_size * MOST + position % size)
    }
}
