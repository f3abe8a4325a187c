//! Sampling on the device. The host reads back and samples the rows that kernels cannot.

use super::device::{Device, Download};
use super::logit_processors::edits;
use super::memory::{Blob, Buffer, Growing, bytes_of};
use super::{Tensor, launch};
use crate::sample::{
    self, PlaceholderNumbers, SampleRow, SampledToken, SampledTokens, SamplingParams,
};
use crate::shapes::RowKind;
use crate::{BackendError, Placeholder, Placeholders, Result};
use galley_kernels_cu::bindings::{gk_edit, gk_sample, gk_sample_row, gk_sampled};
use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::Arc;

const OP: &str = "sample";

/// The state of sampling between calls.
pub(super) struct Sampler {
    calls: Growing,
    /// Rows of logits after their edits.
    pub(super) edited: Growing,
    /// Sampled tokens, then the most likely tokens of the rows that ask for them.
    from_device: Growing,
    /// Tokens sampled asynchronously, at one address until the buffer has to grow.
    pending: Option<Buffer>,
    numbers: PlaceholderNumbers,
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
    fn add(&mut self, row: &SampleRow<'_>, n_vocab: usize) -> bool {
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
            logit_bias: _, // a processor, in `edits`
            logprobs,
        } = row.sampling;
        let Some(edits) = edits(row.processors(), n_vocab) else { return false };
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
        self.edits.extend(edits);
        true
    }
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self {
            calls: Growing::new("rows to sample"),
            edited: Growing::new("edited logits"),
            from_device: Growing::new("sampled tokens"),
            pending: None,
            numbers: PlaceholderNumbers::default(),
            sent: VecDeque::new(),
            blob: Blob::default(),
            host: sample::Scratch::default(),
        }
    }

    /// Samples one token per entry of `rows`.
    pub(super) fn sample(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        rows: &[SampleRow<'_>],
    ) -> Result<Vec<SampledToken>> {
        check_rows(logits, rows)?;
        let mut calls = Calls::default();
        let on_device: Vec<bool> =
            rows.iter().map(|row| calls.add(row, logits.shape.cols)).collect();
        let mut from_device = self.sample_on_device(device, logits, &calls)?.into_iter();
        let mut sampled = Vec::with_capacity(rows.len());
        for (row, on_device) in rows.iter().zip(on_device) {
            let from_device = if on_device { from_device.next() } else { None };
            sampled.push(match from_device {
                Some(sampled) => sampled,
                None => {
                    let logits = logits.read_f32(row.logits_row, 1)?;
                    sample::sample_token(&logits, row, &mut self.host)
                }
            });
        }
        Ok(sampled)
    }

    /// Samples without waiting, except for rows that only the host can sample. Returns one
    /// placeholder per row, for the tokens of later batches.
    pub(super) fn sample_pending(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        rows: &[SampleRow<'_>],
    ) -> Result<Placeholders> {
        check_rows(logits, rows)?;
        let numbers = self.numbers.add(rows.len());
        self.make_room(device, numbers.end)?;
        let mut calls = Calls::default();
        let mut add = |row: &SampleRow<'_>| {
            calls.add(&SampleRow { reports: false, ..*row }, logits.shape.cols)
        };
        if rows.iter().all(&mut add) {
            let sampled =
                self.pending.as_ref().map_or(null_mut(), |pending| pending.at(numbers.start));
            self.enqueue(device, logits, &calls, (sampled, null_mut()))?;
        } else {
            let sampled = self.sample(device, logits, rows)?;
            let of = |sampled: &SampledToken| gk_sampled { token: sampled.token, logprob: 0.0 };
            let sampled: Vec<gk_sampled> = sampled.iter().map(of).collect();
            if let Some(pending) = &self.pending {
                pending.upload(numbers.start * size_of::<gk_sampled>(), bytes_of(&sampled))?;
            }
        }
        Ok(Placeholders::of_numbers(numbers))
    }

    /// Starts to copy the tokens that were sampled since the last call. If that fails, these tokens
    /// are lost: the matching `wait_tokens` returns none. Earlier and later copies are not affected.
    pub(super) fn start_token_copy(&mut self) -> Result<()> {
        let Self { pending, numbers, sent, .. } = self;
        let begin = |run: &Range<usize>| {
            let pending = pending.as_ref().expect("it holds sampled tokens");
            Ok((pending.begin_download::<gk_sampled>(run.start, run.len())?, run.len()))
        };
        let metadata: Result<Vec<_>> = numbers.send().iter().map(begin).collect();
        let (metadata, result) = match metadata {
            Ok(metadata) => (metadata, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        sent.push_back(metadata);
        result
    }

    /// Waits for the oldest copy. If there is none, starts one of all tokens sampled since.
    pub(super) fn wait_tokens(&mut self) -> Result<SampledTokens> {
        if self.sent.is_empty() {
            self.start_token_copy()?;
        }
        let copies = self.sent.pop_front().unwrap_or_default();
        let mut runs = Vec::with_capacity(copies.len());
        for (run, (copy, n)) in self.numbers.take().into_iter().zip(copies) {
            let pending = self.pending.as_ref().expect("it holds sampled tokens");
            let sampled: Vec<gk_sampled> = pending.end_download(copy, n)?;
            runs.push((run.start, sampled.iter().map(|sampled| sampled.token).collect()));
        }
        Ok(SampledTokens::of_runs(runs))
    }

    /// Address and size in bytes of the buffer for asynchronous samples; zeros before the first.
    pub(super) fn pending_place(&self) -> [u64; 2] {
        self.pending.as_ref().map_or([0, 0], |pending| [pending.address(), pending.len() as u64])
    }

    /// Whether the token of a placeholder was not taken yet.
    pub(super) fn is_live(&self, placeholder: Placeholder) -> bool {
        self.numbers.is_live(placeholder)
    }

    /// Address of the buffer for asynchronous samples, and how many fit.
    pub(super) fn pending(
        &mut self,
        device: &Arc<dyn Device>,
    ) -> Result<(*const gk_sampled, usize)> {
        self.make_room(device, 0)?;
        let Some(pending) = &self.pending else { return Ok((null(), 0)) };
        Ok((pending.at(0), pending.len() / size_of::<gk_sampled>()))
    }

    /// Makes room for asynchronous samples with numbers below `n`, and keeps earlier ones.
    fn make_room(&mut self, device: &Arc<dyn Device>, n: usize) -> Result<()> {
        let n_bytes = n.next_power_of_two().max(MIN_AHEAD) * size_of::<gk_sampled>();
        if self.pending.as_ref().is_some_and(|pending| pending.len() >= n_bytes) {
            return Ok(());
        }
        let larger = Buffer::new(device, "pending tokens", n_bytes)?;
        if let Some(pending) = &self.pending {
            larger.upload(0, &pending.download::<u8>(0, pending.len())?)?;
        }
        self.pending = Some(larger);
        Ok(())
    }

    /// Samples the rows of `calls` on the device, and waits. Results are in the order of the rows.
    fn sample_on_device(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        calls: &Calls,
    ) -> Result<Vec<SampledToken>> {
        if calls.rows.is_empty() {
            return Ok(Vec::new());
        }
        let (n_rows, n_top) = (calls.rows.len(), calls.n_top);
        let n_bytes = (n_rows + n_top) * size_of::<gk_sampled>();
        let from_device = self.from_device.get(device, n_bytes)?;
        let places = (from_device.at(0), from_device.at(n_rows));
        self.enqueue(device, logits, calls, places)?;
        let from_device: Vec<gk_sampled> =
            self.from_device.get(device, n_bytes)?.download(0, n_rows + n_top)?;
        let (sampled, top) = from_device.split_at(n_rows);
        let to_sampled = |(row, sampled): (&gk_sample_row, &gk_sampled)| SampledToken {
            token: sampled.token,
            logprob: (row.n_top >= 0).then_some(sampled.logprob),
            top: top[row.top as usize..][..row.n_top.max(0) as usize]
                .iter()
                .map(|top| (top.token, top.logprob))
                .collect(),
            proposal: None,
        };
        Ok(calls.rows.iter().zip(sampled).map(to_sampled).collect())
    }

    /// Enqueues the sampling of the rows of `calls`. Writes sampled tokens to `sampled` in order,
    /// most likely tokens to `top`.
    fn enqueue(
        &mut self,
        device: &Arc<dyn Device>,
        logits: &Tensor,
        calls: &Calls,
        (sampled, top): (*mut gk_sampled, *mut gk_sampled),
    ) -> Result<()> {
        let n_vocab = logits.shape.cols;
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
            sampled,
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

fn check_rows(logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<()> {
    logits.shape.expect(OP, RowKind::F32, 0, logits.shape.cols)?;
    let outside = |row: &&SampleRow<'_>| row.logits_row >= logits.shape.max_rows;
    let Some(row) = rows.iter().find(outside) else { return Ok(()) };
    let expected = format!("rows of logits below {}", logits.shape.max_rows);
    Err(BackendError::Shape { op: OP, expected, got: row.logits_row.to_string() })
}
