//! A simulated device: it stores the content of the slots and computes nothing.

use std::ops::Range;

/// A slot holds the KV of one token, which depends on all tokens before it. Here the KV is a number
/// that depends on them too, so that the right token in the wrong context counts as wrong.
pub(crate) struct Device {
    slots: Vec<u64>,
    block_size: usize,
    n_scribbles: u64,
}

/// The KV of a token after a prefix whose last KV is `before`.
fn kv(before: u64, token: u32) -> u64 {
    (before ^ (u64::from(token) + 1)).wrapping_mul(0xd134_2543_de82_ef95).rotate_left(32)
}

impl Device {
    pub(crate) fn new(n_blocks: usize, block_size: usize) -> Self {
        Device { slots: vec![0; n_blocks * block_size], block_size, n_scribbles: 0 }
    }

    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let from = from as usize * self.block_size;
        self.slots.copy_within(from..from + self.block_size, to as usize * self.block_size);
    }

    /// Writes values that are no token's KV, as rejected draft tokens do.
    pub(crate) fn scribble(&mut self, ids: &[u32], positions: Range<usize>) -> Result<(), String> {
        for position in positions {
            self.n_scribbles += 1;
            let slot = self.slot(ids, position)?;
            self.slots[slot] = u64::MAX - self.n_scribbles;
        }
        Ok(())
    }

    /// Writes the KV of `tokens[start..]` to their slots.
    pub(crate) fn write(
        &mut self,
        ids: &[u32],
        salt: u64,
        tokens: &[u32],
        start: usize,
    ) -> Result<(), String> {
        let mut value = salt;
        for (position, &token) in tokens.iter().enumerate() {
            value = kv(value, token);
            if position >= start {
                let slot = self.slot(ids, position)?;
                self.slots[slot] = value;
            }
        }
        Ok(())
    }

    /// Checks that the slots, read through a table's ids, hold the KV of these tokens.
    pub(crate) fn expect(&self, ids: &[u32], salt: u64, tokens: &[u32]) -> Result<(), String> {
        let mut value = salt;
        for (position, &token) in tokens.iter().enumerate() {
            value = kv(value, token);
            if self.slots[self.slot(ids, position)?] != value {
                return Err(format!("blocks {ids:?} do not hold {tokens:?} at {position}"));
            }
        }
        Ok(())
    }

    fn slot(&self, ids: &[u32], position: usize) -> Result<usize, String> {
        let id = ids.get(position / self.block_size);
        let &id = id.ok_or(format!("position {position} has no slot in blocks {ids:?}"))?;
        Ok(id as usize * self.block_size + position % self.block_size)
    }
}
