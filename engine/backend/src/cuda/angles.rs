//! Cosines and sines of the positions of a batch, once for all layers.

use super::device::Device;
use super::launch;
use super::memory::{Buffer, Growing};
use crate::checks::expect;
use crate::{BackendError, Result, Rope};
use galley_kernels_cu::bindings::gk_angles;
use std::sync::Arc;

/// The angles of the batch that `begin` prepared.
pub(super) struct Angles {
    /// Inverse frequencies on the device, one entry per rope, because models take turns.
    ropes: Vec<(Rope, Buffer)>,
    /// Index of the batch's rope in `ropes`.
    rope: usize,
    n_rows: usize,
    values: Growing,
    /// Whether `values` holds the angles of the batch.
    are_made: bool,
}

impl Angles {
    pub(super) fn new() -> Self {
        let values = Growing::new("angles");
        Self { ropes: Vec::new(), rope: 0, n_rows: 0, values, are_made: false }
    }

    /// Makes room for the angles of a batch.
    pub(super) fn begin(
        &mut self,
        device: &Arc<dyn Device>,
        rope: &Rope,
        head_dim: usize,
        n_rows: usize,
    ) -> Result<()> {
        self.forget();
        expect("batch", "inverse frequencies", head_dim / 2, rope.inv_freq.len())?;
        self.rope = match self.ropes.iter().position(|(kept, _)| kept == rope) {
            Some(at) => at,
            None => {
                let inv_freq = Buffer::of(device, "inverse frequencies", &rope.inv_freq)?;
                self.ropes.push((rope.clone(), inv_freq));
                self.ropes.len() - 1
            }
        };
        self.values.get(device, n_rows * head_dim * size_of::<f32>())?;
        self.n_rows = n_rows;
        Ok(())
    }

    /// Invalidates the angles: the next [`Angles::get`] computes them again.
    pub(super) fn forget(&mut self) {
        self.are_made = false;
    }

    /// The angles in a recording's key: the index of the rope, and the address of the values.
    pub(super) fn identity(&self) -> (usize, u64) {
        (self.rope, self.values.address())
    }

    /// The angles of the batch at these positions. The first call launches their computation.
    pub(super) fn get(
        &mut self,
        device: &Arc<dyn Device>,
        op: &'static str,
        rope: &Rope,
        positions: *const u32,
    ) -> Result<*const f32> {
        let Some((kept, inv_freq)) = self.ropes.get(self.rope).filter(|(kept, _)| kept == rope)
        else {
            return Err(BackendError::Shape {
                op,
                expected: "the rotation that `begin` was given".into(),
                got: "another".into(),
            });
        };
        let half = kept.inv_freq.len();
        let bytes = self.n_rows * 2 * half * size_of::<f32>();
        let call = gk_angles {
            positions,
            inv_freq: inv_freq.at(0),
            angles: self.values.get(device, bytes)?.at(0),
            n_rows: self.n_rows as i32,
            half: half as i32,
            scale: kept.attention_scale,
        };
        if !self.are_made {
            launch(device, "angles", device.kernels().angles, &call)?;
            self.are_made = true;
        }
        Ok(call.angles)
    }
}
