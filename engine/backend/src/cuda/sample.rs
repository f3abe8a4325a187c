//! Sampling on the device. The host reads back and samples the rows that kernels cannot.

use super::device::{Device, Download};
use super::matrix::Kind;
use super::memory::{Blob, Buffer, Growing, bytes_of};
use super::{Tensor, launch};
use crate::sample::{self, Numbers, Pick, Picks, Row, SamplingParams, edits, names};
use crate::{BackendError, Result};
use galley_kernels_cu::bindings::{GK_BANNED, GK_SEEN, gk_edit, gk_pick, gk_sample, gk_sample_row};
use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::Arc;

const OP: &str = "sample";

/// The state of sampling between calls.
pub(super) struct Sampler {
    calls: Growing,
    edited: Growing,
    /// Sampled tokens, then the most likely tokens of the rows that ask for them.
    picked: Growing,
    /// Tokens sampled asynchronously, at one address until the buffer has to grow.
    ahead: Option<Buffer>,
    numbers: Numbers,
    /// Started copies to the host, oldest first: one copy per run of numbers.
    sent: VecDeque<Vec<(Download, usize)>>,
    blob: Blob,
    host: sample::Scratch,
}

/// The rows that the device samples.
#[derive(Default)]
struct Calls {
    rows: Vec<gk_sample_row>,
    edits: Vec<gk_edit>,
    n_edited: usize,
    n_top: usize,
}

impl Calls {
    /// Adds a row. Returns false if only the host can sample it.
    fn add(&mut self, row: &Row<'_>, n_vocab: usize) -> bool {
        if row.rejection.is_some() && !row.sampling.is_greedy() {
            return false;
        }
        // By name and without `..`, so that a new setting does not compile until the device has it.
        let &SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias: _, // in `edits`
            logprobs,
        } = row.sampling;
        let Some(edits) = edits(row, n_vocab) else { return false };
        let n_top = match logprobs.filter(|_| row.reports) {
            Some(n) => (n as usize).min(n_vocab) as i32,
            None => -1,
        };
        self.rows.push(gk_sample_row {
            seed: row.seed,
            logits_row: row.logits_row as i32,
            position: row.position,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
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
            ahead: None,
            numbers: Numbers::default(),
            sent: VecDeque::new(),
            blob: Blob::default(),
            host: sample::Scratch::default(),
        }
    }

    /// Samples one token per entry of `rows`.
    pub(super) fn pick(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        rows: &[Row<'_>],
    ) -> Result<Vec<Pick>> {
        check_rows(logits, rows)?;
        let mut calls = Calls::default();
        let on_device: Vec<bool> = rows.iter().map(|row| calls.add(row, logits.cols)).collect();
        let mut picked = self.pick_on_device(device, logits, &calls)?.into_iter();
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

    /// Samples without waiting, except for rows that only the host can sample. Returns one
    /// placeholder per row, for the tokens of later batches.
    pub(super) fn pick_ahead(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        rows: &[Row<'_>],
    ) -> Result<Range<u32>> {
        check_rows(logits, rows)?;
        let numbers = self.numbers.add(rows.len());
        self.make_room(device, numbers.end)?;
        let mut calls = Calls::default();
        let mut add = |row: &Row<'_>| calls.add(&Row { reports: false, ..*row }, logits.cols);
        if rows.iter().all(&mut add) {
            let picks = self.ahead.as_ref().map_or(null_mut(), |ahead| ahead.at(numbers.start));
            self.enqueue(device, logits, &calls, (picks, null_mut()))?;
        } else {
            let picks = self.pick(device, logits, rows)?;
            let of = |pick: &Pick| gk_pick { token: pick.token, logprob: 0.0 };
            let picks: Vec<gk_pick> = picks.iter().map(of).collect();
            if let Some(ahead) = &self.ahead {
                ahead.upload(numbers.start * size_of::<gk_pick>(), bytes_of(&picks))?;
            }
        }
        Ok(names(numbers))
    }

    /// Starts to copy the tokens that were sampled since the last call. If that fails, these tokens
    /// are lost: the matching `take_picks` returns none. Earlier and later copies are not affected.
    pub(super) fn send_picks(&mut self) -> Result<()> {
        let Self { ahead, numbers, sent, .. } = self;
        let begin = |run: &Range<usize>| {
            let ahead = ahead.as_ref().expect("there are picks in it");
            Ok((ahead.begin_download::<gk_pick>(run.start, run.len())?, run.len()))
        };
        let begun: Result<Vec<_>> = numbers.send().iter().map(begin).collect();
        let (begun, result) = match begun {
            Ok(begun) => (begun, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        sent.push_back(begun);
        result
    }

    /// Waits for the oldest copy. If there is none, starts one of all tokens sampled since.
    pub(super) fn take_picks(&mut self) -> Result<Picks> {
        if self.sent.is_empty() {
            self.send_picks()?;
        }
        let copies = self.sent.pop_front().unwrap_or_default();
        let mut runs = Vec::with_capacity(copies.len());
        for (run, (copy, n)) in self.numbers.take().into_iter().zip(copies) {
            let ahead = self.ahead.as_ref().expect("there are picks in it");
            let picks: Vec<gk_pick> = ahead.end_download(copy, n)?;
            runs.push((run.start, picks.iter().map(|pick| pick.token).collect()));
        }
        Ok(Picks::of_runs(runs))
    }

    /// Address and size in bytes of the buffer for asynchronous samples; zeros before the first.
    pub(super) fn ahead_place(&self) -> [u64; 2] {
        self.ahead.as_ref().map_or([0, 0], |ahead| [ahead.address(), ahead.len() as u64])
    }

    /// Whether this number belongs to a sampled token that was not taken yet.
    pub(super) fn is_live(&self, number: usize) -> bool {
        self.numbers.is_live(number)
    }

    /// Address of the buffer for asynchronous samples, and how many fit.
    pub(super) fn ahead(&mut self, device: &Arc<dyn Device>) -> Result<(*const gk_pick, usize)> {
        self.make_room(device, 0)?;
        let Some(ahead) = &self.ahead else { return Ok((null(), 0)) };
        Ok((ahead.at(0), ahead.len() / size_of::<gk_pick>()))
    }

    /// Makes room for asynchronous samples with numbers below `n`, and keeps earlier ones.
    fn make_room(&mut self, device: &Arc<dyn Device>, n: usize) -> Result<()> {
        let n_bytes = n.next_power_of_two().max(MIN_AHEAD) * size_of::<gk_pick>();
        if self.ahead.as_ref().is_some_and(|ahead| ahead.len() >= n_bytes) {
            return Ok(());
        }
        let larger = Buffer::new(device, "picks made ahead", n_bytes)?;
        if let Some(ahead) = &self.ahead {
            larger.upload(0, &ahead.download::<u8>(0, ahead.len())?)?;
        }
        self.ahead = Some(larger);
        Ok(())
    }

    /// Samples the rows of `calls` on the device, and waits. Results are in the order of the rows.
    fn pick_on_device(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        calls: &Calls,
    ) -> Result<Vec<Pick>> {
        if calls.rows.is_empty() {
            return Ok(Vec::new());
        }
        let (n_rows, n_top) = (calls.rows.len(), calls.n_top);
        let n_bytes = (n_rows + n_top) * size_of::<gk_pick>();
        let picked = self.picked.get(device, n_bytes)?;
        let places = (picked.at(0), picked.at(n_rows));
        self.enqueue(device, logits, calls, places)?;
        let picked: Vec<gk_pick> = self.picked.get(device, n_bytes)?.download(0, n_rows + n_top)?;
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

    /// Enqueues the sampling of the rows of `calls`. Writes sampled tokens to `picks` in order,
    /// most likely tokens to `top`.
    fn enqueue(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        calls: &Calls,
        (picks, top): (*mut gk_pick, *mut gk_pick),
    ) -> Result<()> {
        let n_vocab = logits.cols;
        self.blob.bytes.clear();
        let (rows, edits) = (self.blob.push(&calls.rows), self.blob.push(&calls.edits));
        let sent = self.calls.get(device, self.blob.bytes.len())?;
        sent.upload(0, &self.blob.bytes)?;
        let edited = calls.n_edited * n_vocab * size_of::<f32>();
        let call = gk_sample {
            logits: logits.buffer.at(0),
            rows: sent.part(rows),
            edits: sent.part(edits),
            edited: self.edited.get(device, edited)?.at(0),
            picks,
            top,
            logits_stride: logits.stride as i64,
            n_rows: calls.rows.len() as i32,
            n_vocab: n_vocab as i32,
        };
        launch(device, OP, device.kernels().sample, &call)
    }
}

/// Initial room for asynchronous samples: a round of a hundred sequences with drafts of forty.
const MIN_AHEAD: usize = 4096;

fn check_rows(logits: &Tensor, rows: &[Row<'_>]) -> Result<()> {
    logits.expect(OP, Kind::F32, 0, logits.cols)?;
    let outside = |row: &&Row<'_>| row.logits_row >= logits.max_rows;
    let Some(row) = rows.iter().find(outside) else { return Ok(()) };
    let expected = format!("rows of logits below {}", logits.max_rows);
    Err(BackendError::Shape { op: OP, expected, got: row.logits_row.to_string() })
}
