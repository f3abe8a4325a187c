//! Chains of sampled tokens that stay on the device.

use super::counting::Counting;
use super::*;
use crate::Placeholder;
use crate::sample::{SampleRow, SamplingParams};
use std::sync::atomic::Ordering::Relaxed;

const COLS: usize = 64;
const N_VOCAB: usize = 90;
const LENGTH: usize = 6;

/// The seed of the sampled tokens.
const TOKEN_SEED: u64 = 5;

fn row_of(logits_row: usize, sampling: &SamplingParams, position: u32) -> SampleRow<'_> {
    SampleRow { logits_row, seed: TOKEN_SEED, ..sample_row(sampling, position) }
}

/// A model without layers: the embedding of a token decides the next token.
struct Layerless {
    table: Vec<f32>,
    head: Vec<f32>,
    norm: Vec<f32>,
}

impl Layerless {
    fn new() -> Self {
        let mut values = Values(21);
        let (table, head) = (values.take(N_VOCAB * COLS), values.take(N_VOCAB * COLS));
        Layerless { table, head, norm: vec![1.0; COLS] }
    }

    /// Decodes two sequences from tokens 3 and 4, one token per step; a third sequence joins later.
    /// Returns the tokens of each.
    fn chain<B: TestBackend>(
        &self,
        backend: &mut B,
        samplings: [&SamplingParams; 3],
        pending: bool,
    ) -> Vec<Vec<InputToken>> {
        let shape = one_head_shape(3);
        let pool = backend.kv_pool(shape).unwrap();
        let rope = Rope { inv_freq: vec![1.0; 8], attention_scale: 1.0 };
        let params = AttentionParams { scale: 1.0, window: None };
        let table = load(backend, N_VOCAB, COLS, &self.table);
        let head = load(backend, N_VOCAB, COLS, &self.head);
        let norm = backend.load_vector(&self.norm).unwrap();
        let mut x = backend.f32_rows(3, COLS).unwrap();
        let mut logits = backend.f32_rows(3, N_VOCAB).unwrap();
        let mut chains: Vec<Vec<_>> = [3, 4, 5].map(|id| vec![InputToken::known(id)]).into();
        for step in 0..LENGTH {
            let n_seqs = if step < 2 { 2 } else { 3 };
            let tokens: Vec<_> = (0..n_seqs).map(|at| *chains[at].last().unwrap()).collect();
            let positions: Vec<u32> = (0..n_seqs).map(|at| chains[at].len() as u32 - 1).collect();
            let seqs: Vec<SeqSpan<'_>> = [&[0], &[1], &[2]][..n_seqs]
                .iter()
                .enumerate()
                .map(|(first_row, block_table)| SeqSpan {
                    first_row,
                    n_rows: 1,
                    block_table: *block_table,
                    writes_kv: true,
                    view: KvView::default(),
                })
                .collect();
            let logit_rows: Vec<u32> = (0..n_seqs as u32).collect();
            let batch = Batch {
                tokens: &tokens,
                positions: &positions,
                seqs: &seqs,
                logit_rows: &logit_rows,
            };
            backend.begin(&batch, &pool, &rope, 1, params).unwrap();
            backend.embed(&table, &batch, &mut x).unwrap();
            backend.logits(&x, &norm, 1e-5, &head, &batch, &mut logits).unwrap();
            let row = |logits_row: usize| {
                row_of(logits_row, samplings[logits_row], positions[logits_row] + 1)
            };
            let rows: Vec<SampleRow<'_>> = (0..n_seqs).map(row).collect();
            let next: Vec<InputToken> = match pending {
                true => {
                    let placeholders = backend.sample_async(&logits, &rows).unwrap();
                    placeholders.map(InputToken::pending).collect()
                }
                false => {
                    let sampled = backend.sample(&logits, &rows).unwrap();
                    sampled.iter().map(|sampled| InputToken::known(sampled.token)).collect()
                }
            };
            chains.iter_mut().zip(next).for_each(|(chain, token)| chain.push(token));
        }
        if pending {
            let sampled = backend.wait_tokens().unwrap();
            assert_eq!(sampled.n_sampled(), 2 * 2 + 3 * (LENGTH - 2));
            chains.iter_mut().for_each(|chain| sampled.resolve(chain));
            assert_eq!(backend.wait_tokens().unwrap().n_sampled(), 0, "they are taken once");
        }
        chains
    }
}

#[test]
fn a_chain_is_waited_for_once() {
    let model = Layerless::new();
    let drawn = SamplingParams { temperature: 1.0, logprobs: Some(2), ..SamplingParams::greedy() };
    let samplings = [&SamplingParams::greedy(), &drawn, &drawn];
    let expected = model.chain(&mut cpu(), samplings, false);
    assert_eq!(expected, model.chain(&mut cpu(), samplings, true));
    let (mut backend, counting) = Counting::backend();
    assert_eq!(expected, model.chain(&mut backend, samplings, false));
    assert_eq!(counting.take_waits(), LENGTH, "the host waits for each token");
    assert_eq!(expected, model.chain(&mut backend, samplings, true));
    assert_eq!(counting.take_waits(), 1);
    // The control: other sampling settings give another chain.
    let other = model.chain(&mut backend, [&drawn, &drawn, &drawn], true);
    assert_ne!(expected[0], other[0]);
}

/// The host samples a row that biases a token twice. Its token joins the tokens on the device.
#[test]
fn what_only_the_host_picks_joins_the_chain() {
    let Some(mut backend) = backend() else { return };
    let model = Layerless::new();
    let twice = SamplingParams { logit_bias: vec![(9, 1.0), (9, 0.5)], ..SamplingParams::greedy() };
    let samplings = [&SamplingParams::greedy(), &twice, &twice];
    let expected = model.chain(&mut cpu(), samplings, false);
    assert_eq!(expected, model.chain(&mut backend, samplings, true));
}

#[test]
fn picks_survive_that_more_are_made_than_expected() {
    let Some(mut backend) = backend() else { return };
    let mut values = Values(22);
    let logits = values.take(N_VOCAB);
    let mut tensor = backend.f32_rows(1, N_VOCAB).unwrap();
    backend.write(&mut tensor, 0, &logits);
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy() };
    let row = |position: u32| row_of(0, &sampling, position);
    let few: Vec<SampleRow<'_>> = (0..5).map(row).collect();
    let expected = backend.sample(&tensor, &few).unwrap();
    assert!(expected.iter().any(|sampled| sampled.token != expected[0].token));
    let first = backend.sample_async(&tensor, &few).unwrap();
    let (before, n_room) = backend.sampler.pending(&backend.device).unwrap();
    let many: Vec<SampleRow<'_>> = (0..n_room as u32).map(|_| row(0)).collect();
    let mut later = backend.sample_async(&tensor, &many).unwrap();
    assert_eq!(later, Placeholders::of_numbers(5..5 + n_room));
    assert_ne!(before, backend.sampler.pending(&backend.device).unwrap().0, "they have moved");
    let sampled = backend.wait_tokens().unwrap();
    assert!(first.zip(&expected).all(|(at, expected)| sampled.token(at) == Some(expected.token)));
    assert!(later.all(|at| sampled.token(at) == Some(expected[0].token)));
}

/// The device is a step ahead: the tokens of a step are taken after the next step was enqueued, and
/// still belong to their own step.
#[test]
fn picks_are_taken_a_step_late() {
    let (mut backend, counting) = Counting::backend();
    let mut values = Values(23);
    let mut tensor = backend.f32_rows(2, N_VOCAB).unwrap();
    (0..2).for_each(|row| backend.write(&mut tensor, row, &values.take(N_VOCAB)));
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy() };
    let row = |logits_row: usize, position: u32| row_of(logits_row, &sampling, position);
    let rows = |step: u32| [row(0, step), row(1, step)];
    let expected: Vec<Vec<u32>> = (0..20)
        .map(|step| backend.sample(&tensor, &rows(step)).unwrap().iter().map(|p| p.token).collect())
        .collect();
    counting.take_waits();
    let (place, _) = backend.sampler.pending(&backend.device).unwrap();
    let mut before = backend.sample_async(&tensor, &rows(0)).unwrap();
    backend.start_token_copy().unwrap();
    for step in 1..20 {
        let now = backend.sample_async(&tensor, &rows(step)).unwrap();
        backend.start_token_copy().unwrap();
        let sampled = backend.wait_tokens().unwrap();
        let taken: Vec<_> = before.filter_map(|at| sampled.token(at)).collect();
        assert_eq!(taken, expected[step as usize - 1]);
        assert!(now.clone().all(|at| sampled.token(at).is_none()));
        before = now;
    }
    assert_eq!(counting.take_waits(), 19, "one wait a step, for the step before");
    assert_eq!(backend.sampler.pending(&backend.device).unwrap().0, place);
    assert_eq!(backend.wait_tokens().unwrap().n_sampled(), 2);
}

/// If a copy fails to start, its tokens are lost. Earlier and later copies keep their tokens.
#[test]
fn picks_that_cannot_be_sent_leave_the_others_in_their_order() {
    let (mut backend, counting) = Counting::backend();
    let mut values = Values(24);
    let mut tensor = backend.f32_rows(1, N_VOCAB).unwrap();
    backend.write(&mut tensor, 0, &values.take(N_VOCAB));
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy() };
    let rows = |step: u32| [row_of(0, &sampling, step)];
    let expected: Vec<u32> =
        (0..3).map(|step| backend.sample(&tensor, &rows(step)).unwrap()[0].token).collect();
    let placeholders: Vec<Placeholder> = (0..3)
        .map(|step| {
            let placeholder = backend.sample_async(&tensor, &rows(step)).unwrap().next().unwrap();
            counting.n_failing.store(usize::from(step == 1), Relaxed);
            assert_eq!(backend.start_token_copy().is_err(), step == 1);
            placeholder
        })
        .collect();
    assert_eq!(backend.wait_tokens().unwrap().token(placeholders[0]), Some(expected[0]));
    assert_eq!(backend.wait_tokens().unwrap().n_sampled(), 0, "they were not sent");
    assert_eq!(backend.wait_tokens().unwrap().token(placeholders[2]), Some(expected[2]));
}
