//! Picking tokens where the logits are. What kernels do not do, the host does with a row of logits read back.

use super::device::Device;
use super::memory::{Blob, Growing};
use super::{Tensor, launch};
use crate::sample::{self, Pick, Row, edits};
use crate::{BackendError, Result};
use galley_kernels_cu::bindings::{GK_BANNED, GK_SEEN, gk_edit, gk_pick, gk_sample, gk_sample_row};
use std::sync::Arc;

const OP: &str = "sample";

/// What sampling keeps between calls.
pub(super) struct Sampler {
    calls: Growing,
    edited: Growing,
    /// Picks, then the most likely tokens of the rows that ask for them.
    picked: Growing,
    blob: Blob,
    host: sample::Scratch,
}

/// The rows that the device picks for.
#[derive(Default)]
struct Calls {
    rows: Vec<gk_sample_row>,
    edits: Vec<gk_edit>,
    n_edited: usize,
    n_top: usize,
}

impl Calls {
    /// Takes a row in, unless only the host can pick for it.
    fn add(&mut self, row: &Row<'_>, n_vocab: usize) -> bool {
        let sampling = row.sampling;
        if row.rejection.is_some() && !sampling.is_greedy() {
            return false;
        }
        let Some(edits) = edits(row, n_vocab) else { return false };
        let n_top = match sampling.logprobs.filter(|_| row.reports) {
            Some(n) => (n as usize).min(n_vocab) as i32,
            None => -1,
        };
        self.rows.push(gk_sample_row {
            seed: row.seed,
            logits_row: row.logits_row as i32,
            position: row.position,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            first_edit: self.edits.len() as i32,
            n_edits: edits.len() as i32,
            edited: if edits.is_empty() { -1 } else { self.n_edited as i32 },
            n_top,
            top: self.n_top as i32,
        });
        self.n_edited += usize::from(!edits.is_empty());
        self.n_top += n_top.max(0) as usize;
        self.edits.extend(edits.into_iter().map(|edit| gk_edit {
            token: edit.token,
            flags: u32::from(edit.is_seen) * GK_SEEN + u32::from(edit.is_banned) * GK_BANNED,
            n_in_output: edit.n_in_output,
            bias: edit.bias,
        }));
        true
    }
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self {
            calls: Growing::new("rows to sample"),
            edited: Growing::new("edited logits"),
            picked: Growing::new("picked tokens"),
            blob: Blob::default(),
            host: sample::Scratch::default(),
        }
    }

    /// One token per entry of `rows`.
    pub(super) fn pick(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        rows: &[Row<'_>],
    ) -> Result<Vec<Pick>> {
        if let Some(row) = rows.iter().find(|row| row.logits_row >= logits.max_rows) {
            let expected = format!("rows of logits below {}", logits.max_rows);
            let got = row.logits_row.to_string();
            return Err(BackendError::Shape { op: OP, expected, got });
        }
        let mut calls = Calls::default();
        let on_device: Vec<bool> = rows.iter().map(|row| calls.add(row, logits.cols)).collect();
        let mut picked = self.launch(device, logits, &calls)?.into_iter();
        let mut picks = Vec::with_capacity(rows.len());
        for (row, on_device) in rows.iter().zip(on_device) {
            let picked = if on_device { picked.next() } else { None };
            picks.push(match picked {
                Some(pick) => pick,
                None => {
                    let logits = logits.read_f32(row.logits_row, 1)?;
                    sample::pick(&logits, row, &mut self.host)
                }
            });
        }
        Ok(picks)
    }

    /// Picks for the rows of `calls`, in their order.
    fn launch(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        calls: &Calls,
    ) -> Result<Vec<Pick>> {
        if calls.rows.is_empty() {
            return Ok(Vec::new());
        }
        let n_vocab = logits.cols;
        self.blob.bytes.clear();
        let (rows, edits) = (self.blob.push(&calls.rows), self.blob.push(&calls.edits));
        let sent = self.calls.get(device, self.blob.bytes.len())?;
        sent.upload(0, &self.blob.bytes)?;
        let (n_rows, n_top) = (calls.rows.len(), calls.n_top);
        let picked = self.picked.get(device, (n_rows + n_top) * size_of::<gk_pick>())?;
        let edited = calls.n_edited * n_vocab * size_of::<f32>();
        let call = gk_sample {
            logits: logits.buffer.at(0),
            rows: sent.part(rows),
            edits: sent.part(edits),
            edited: self.edited.get(device, edited)?.at(0),
            picks: picked.at(0),
            top: picked.at(n_rows),
            logits_stride: logits.stride as i64,
            n_rows: n_rows as i32,
            n_vocab: n_vocab as i32,
        };
        launch(device, OP, device.kernels().sample, &call)?;
        let picked: Vec<gk_pick> = picked.download(0, n_rows + n_top)?;
        let (picks, top) = picked.split_at(n_rows);
        let pick = |(row, pick): (&gk_sample_row, &gk_pick)| Pick {
            token: pick.token,
            logprob: (row.n_top >= 0).then_some(pick.logprob),
            top: top[row.top as usize..][..row.n_top.max(0) as usize]
                .iter()
                .map(|top| (top.token, top.logprob))
                .collect(),
            proposal: None,
        };
        Ok(calls.rows.iter().zip(picks).map(pick).collect())
    }
}
