//! Sampling on the device against `galley_backend::sample::sample_token`: equal logits give equal tokens.

use galley_backend::sample::philox::philox4x32_10;
use galley_backend::sample::{
    SampleRow, SampledToken, SamplingParams, Scratch, TokenCounts, sample_token,
};
use galley_kernels_cu::bindings::*;
use galley_kernels_cu::emulated;
use std::collections::BTreeMap;
use std::ptr::null_mut;

/// Reproducible random numbers.
struct Random(u32);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 += 1;
        philox4x32_10([self.0, 0, 0, 0], [5, 6])[0]
    }

    fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn logits(&mut self, n: usize, spread: f32) -> Vec<f32> {
        let mut uniform = || (self.word() as f32 + 0.5) / 4_294_967_296.0;
        let mut normal =
            || (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
        (0..n).map(|_| normal() * spread).collect()
    }

    fn sampling(&mut self, n_vocab: usize) -> SamplingParams {
        let mut sampling = SamplingParams::greedy();
        sampling.temperature = self.one_of(&[0.0, 0.3, 0.7, 1.0, 1.3, 4.0]);
        sampling.top_k = self.one_of(&[0, 0, 0, 1, 3, 20, 70, 900, 5000]);
        sampling.top_p = self.one_of(&[1.0, 1.0, 1.0, 0.01, 0.5, 0.9, 0.95, 0.999, 0.999_999]);
        sampling.min_p = self.one_of(&[0.0, 0.0, 0.0, 0.01, 0.1, 0.5, 1.0]);
        sampling.repetition_penalty = self.one_of(&[1.0, 1.0, 0.5, 1.3]);
        sampling.presence_penalty = self.one_of(&[0.0, 0.0, 0.7, -0.4]);
        sampling.frequency_penalty = self.one_of(&[0.0, 0.0, 0.3]);
        let mut bias = BTreeMap::new();
        for _ in 0..self.one_of(&[0, 0, 5]) {
            bias.insert(self.below(n_vocab + 3) as u32, self.one_of(&[2.5, -1.0, 0.1, -100.0]));
        }
        sampling.logit_bias = bias.into_iter().collect();
        sampling.logprobs = self.one_of(&[None, None, Some(0), Some(1), Some(5), Some(20)]);
        sampling
    }
}

/// One sample: the settings and tokens of a request, and its row of logits.
struct Case {
    logits_row: usize,
    sampling: SamplingParams,
    seed: u64,
    position: u32,
    prompt: Vec<u32>,
    output: Vec<u32>,
    banned: Vec<u32>,
}

impl Case {
    fn new(logits_row: usize, sampling: SamplingParams, position: u32) -> Self {
        let (seed, prompt, output, banned) = (0x1234_5678_9abc_def0, vec![], vec![], vec![]);
        Case { logits_row, sampling, seed, position, prompt, output, banned }
    }

    fn random(random: &mut Random, n_rows: usize, n_vocab: usize) -> Self {
        let sampling = random.sampling(n_vocab);
        let mut case = Case::new(random.below(n_rows), sampling, random.word());
        case.seed = u64::from(random.word()) << 32 | u64::from(random.word());
        let mut tokens = |most: usize| -> Vec<u32> {
            (0..random.below(most)).map(|_| random.below(n_vocab + 2) as u32).collect()
        };
        (case.prompt, case.output, case.banned) = (tokens(40), tokens(20), tokens(3));
        case
    }

    /// The result on the CPU.
    fn expected(&self, logits: &[f32], scratch: &mut Scratch) -> SampledToken {
        let mut seen = TokenCounts::of_prompt(&self.prompt);
        self.output.iter().for_each(|&token| seen.push_output(token));
        let row = SampleRow {
            logits_row: self.logits_row,
            sampling: &self.sampling,
            seed: self.seed,
            position: self.position,
            seen: self.sampling.has_penalties().then_some(&seen),
            drafted: &[],
            banned: &self.banned,
            early_ends: &[],
            reports: true,
            rejection: None,
        };
        sample_token(logits, &row, scratch)
    }

    /// The edits of the row, with distinct tokens.
    fn edits(&self) -> Vec<gk_edit> {
        let mut edits: BTreeMap<u32, gk_edit> = BTreeMap::new();
        let mut of = |token: u32, change: &dyn Fn(&mut gk_edit)| {
            change(edits.entry(token).or_insert(gk_edit {
                token,
                flags: 0,
                n_in_output: 0,
                bias: 0.0,
            }));
        };
        for &(token, bias) in &self.sampling.logit_bias {
            of(token, &|edit| edit.bias = bias);
        }
        if self.sampling.has_penalties() {
            self.prompt.iter().for_each(|&token| of(token, &|edit| edit.flags |= GK_SEEN));
            for &token in &self.output {
                of(token, &|edit| {
                    edit.flags |= GK_SEEN;
                    edit.n_in_output += 1;
                });
            }
        }
        self.banned.iter().for_each(|&token| of(token, &|edit| edit.flags |= GK_BANNED));
        edits.into_values().collect()
    }
}

/// The results on the device: tokens, log-probabilities, alternatives.
fn on_device(logits: &[f32], stride: usize, n_vocab: usize, cases: &[Case]) -> Vec<SampledToken> {
    let nothing = gk_sampled { token: 77, logprob: 77.0 };
    let (mut edits, mut rows, mut n_edited, mut n_top) = (vec![], vec![], 0, 0);
    for case in cases {
        let sampling = &case.sampling;
        let own = case.edits();
        rows.push(gk_sample_row {
            seed: case.seed,
            logits_row: case.logits_row as i32,
            position: case.position,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            first_edit: edits.len() as i32,
            n_edits: own.len() as i32,
            edited: if own.is_empty() { -1 } else { n_edited },
            n_top: sampling.logprobs.map_or(-1, |n| n as i32),
            top: n_top,
        });
        n_edited += i32::from(!own.is_empty());
        n_top += sampling.logprobs.unwrap_or(0) as i32;
        edits.extend(own);
    }
    let mut edited = vec![0.0; n_edited as usize * n_vocab];
    let mut sampled = vec![nothing; cases.len() + 1];
    let mut top = vec![nothing; n_top as usize + 1];
    let call = gk_sample {
        logits: logits.as_ptr(),
        rows: rows.as_ptr(),
        edits: edits.as_ptr(),
        edited: edited.as_mut_ptr(),
        sampled: sampled.as_mut_ptr(),
        top: top.as_mut_ptr(),
        logits_stride: stride as i64,
        n_rows: cases.len() as i32,
        n_vocab: n_vocab as i32,
    };
    // SAFETY: every pointer has room for the sizes in the rows above; the emulation finishes before the call returns.
    let error =
        unsafe { emulated().sample.expect("it is in the table")(&raw const call, null_mut()) };
    assert_eq!(error, 0);
    assert_eq!(sampled[cases.len()].token, 77, "a token beyond the last row");
    assert_eq!(top[n_top as usize].token, 77, "an alternative beyond the last");
    let mut top = &top[..];
    let result = cases.iter().zip(&sampled).map(|(case, sampled)| {
        let n = case.sampling.logprobs.unwrap_or(0) as usize;
        let own = top[..n].iter().take_while(|sampled| sampled.token != GK_NO_TOKEN);
        let own = own.map(|sampled| (sampled.token, sampled.logprob)).collect();
        top = &top[n..];
        let logprob = case.sampling.logprobs.map(|_| sampled.logprob);
        SampledToken { token: sampled.token, logprob, top: own, proposal: None }
    });
    result.collect()
}

fn is_close(a: f32, b: f32) -> bool {
    a == b || (a - b).abs() <= 1e-5
}

fn agrees(got: &SampledToken, expected: &SampledToken) -> bool {
    got.token == expected.token
        && got.logprob.is_some() == expected.logprob.is_some()
        && is_close(got.logprob.unwrap_or(0.0), expected.logprob.unwrap_or(0.0))
        && got.top.len() == expected.top.len()
        && got.top.iter().zip(&expected.top).all(|(a, b)| a.0 == b.0 && is_close(a.1, b.1))
}

/// Compares the results of `cases` on the device and on the CPU.
fn check(logits: &[f32], stride: usize, n_vocab: usize, cases: &[Case], label: &str) {
    let mut scratch = Scratch::default();
    for (case, got) in cases.iter().zip(on_device(logits, stride, n_vocab, cases)) {
        let row = &logits[case.logits_row * stride..][..n_vocab];
        let expected = case.expected(row, &mut scratch);
        let Case { sampling, seed, position, .. } = case;
        assert!(
            agrees(&got, &expected),
            "{label}, {n_vocab} values, seed {seed:#x}, position {position}: {got:?}, expected {expected:?}; {sampling:?}"
        );
    }
}

#[test]
fn picks_are_those_of_the_cpu() {
    let mut random = Random(0);
    for batch in 0..110 {
        let n_vocab = random.one_of(&[1, 50, 63, 64, 500, 1000, 1001, 2048, 4097, 5000]);
        let (n_rows, stride) = (3, n_vocab + random.one_of(&[0, 1, 4]));
        let spread = random.one_of(&[0.0, 0.1, 1.0, 3.0, 12.0]);
        let mut logits = random.logits(n_rows * stride, spread);
        if random.below(3) == 0 {
            logits.iter_mut().for_each(|logit| *logit = logit.round()); // many ties
        }
        // More samples than rows of logits: some share a row.
        let cases: Vec<_> = (0..20).map(|_| Case::random(&mut random, n_rows, n_vocab)).collect();
        check(&logits, stride, n_vocab, &cases, &format!("batch {batch}, spread {spread}"));
    }
}

#[test]
fn large_vocabularies() {
    let mut random = Random(1);
    let n_vocab = 128_256;
    let mut logits = random.logits(2 * n_vocab, 2.5);
    (0..40).for_each(|i| logits[i * 997] += 12.0 - i as f32 * 0.2);
    logits[n_vocab..].iter_mut().for_each(|logit| *logit = (*logit * 0.2).round());
    let settings = [(0, 1.0, 0.0), (50, 1.0, 0.0), (0, 0.95, 0.0), (3000, 0.999, 0.01)];
    let mut cases = Vec::new();
    for logits_row in 0..2 {
        for (position, (top_k, top_p, min_p)) in (0..).zip(settings) {
            let base = SamplingParams::greedy().temperature(0.8).logprobs(3);
            let sampling = base.top_k(top_k).top_p(top_p).min_p(min_p);
            cases.push(Case::new(logits_row, sampling, position));
        }
    }
    check(&logits, n_vocab, n_vocab, &cases, "large");
}

#[test]
fn odd_logits() {
    let mut random = Random(2);
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    let odd = [infinity, -infinity, nan, f32::MAX, f32::MIN, 0.0, -0.0, 1e-40, 1.0];
    for n_vocab in [1, 5, 66, 300] {
        let mut logits = vec![-infinity; n_vocab];
        logits.extend(vec![nan; n_vocab]);
        logits.extend((0..n_vocab).map(|i| [nan, -infinity][i % 2]));
        logits.extend((0..n_vocab).map(|_| random.one_of(&odd)));
        logits.extend((0..n_vocab).map(|_| random.one_of(&odd[4..])));
        logits.extend((0..n_vocab).map(|_| random.one_of(&odd[5..8])));
        let cases: Vec<_> = (0..90).map(|_| Case::random(&mut random, 6, n_vocab)).collect();
        check(&logits, n_vocab, n_vocab, &cases, "odd logits");
    }
}

#[test]
fn any_number_of_alternatives() {
    let mut random = Random(3);
    let n_vocab = 5000;
    let mut logits = random.logits(n_vocab, 1.0);
    logits[..3000].iter_mut().for_each(|logit| *logit = (*logit * 4.0).round());
    logits[4000..4010].fill(f32::NEG_INFINITY);
    let of = |n: u32| Case::new(0, SamplingParams::greedy().logprobs(n), 0);
    let cases: Vec<_> = [127, 128, 129, 2047, 2048, 2049, 4096, 5000, 5003].map(of).into();
    check(&logits, n_vocab, n_vocab, &cases, "alternatives");
}

/// A sampled token depends on its row alone: it is the same without other rows, and in another order.
#[test]
fn neighbours_change_nothing() {
    let mut random = Random(4);
    let n_vocab = 1000;
    let logits = random.logits(4 * n_vocab, 2.0);
    let mut cases: Vec<_> = (0..40).map(|_| Case::random(&mut random, 4, n_vocab)).collect();
    let mut together = on_device(&logits, n_vocab, n_vocab, &cases);
    cases.reverse();
    together.reverse();
    assert_eq!(on_device(&logits, n_vocab, n_vocab, &cases), together);
    for (case, expected) in cases.chunks(1).zip(&together) {
        assert_eq!(&on_device(&logits, n_vocab, n_vocab, case)[0], expected);
    }
}

/// The control: on the same kind of data, slightly wrong settings give other tokens.
#[test]
fn wrong_settings_are_noticed() {
    let mut random = Random(5);
    let n_vocab = 1000;
    let logits = random.logits(n_vocab, 0.5);
    let base = SamplingParams::greedy().temperature(1.0).top_k(40).top_p(0.9);
    type Change = fn(&mut Case);
    let changes: [(&str, Change); 6] = [
        ("seed", |case| case.seed ^= 1),
        ("position", |case| case.position += 1000),
        ("temperature", |case| case.sampling.temperature = 1.2),
        ("top-k", |case| case.sampling.top_k = 30),
        ("top-p", |case| case.sampling.top_p = 0.8),
        ("a ban", |case| case.banned = (0..500).collect()),
    ];
    let cases =
        || (0..300).map(|position| Case::new(0, base.clone(), position)).collect::<Vec<_>>();
    let right = on_device(&logits, n_vocab, n_vocab, &cases());
    check(&logits, n_vocab, n_vocab, &cases(), "control");
    for (label, change) in changes {
        let mut wrong = cases();
        wrong.iter_mut().for_each(change);
        let wrong = on_device(&logits, n_vocab, n_vocab, &wrong);
        let n_noticed = right.iter().zip(&wrong).filter(|(a, b)| !agrees(a, b)).count();
        assert!(n_noticed > 3, "another {label} gave {n_noticed} other tokens of 300");
    }
}

#[test]
fn bad_calls_are_refused() {
    let (logits, mut sampled) = ([0.0f32; 8], [gk_sampled { token: 0, logprob: 0.0 }; 1]);
    // SAFETY: the fields are numbers, for which zeros are valid.
    let row: gk_sample_row = unsafe { std::mem::zeroed() };
    let call = gk_sample {
        logits: logits.as_ptr(),
        rows: &raw const row,
        edits: std::ptr::null(),
        edited: null_mut(),
        sampled: sampled.as_mut_ptr(),
        top: null_mut(),
        logits_stride: 8,
        n_rows: 1,
        n_vocab: 8,
    };
    let sample = emulated().sample.expect("it is in the table");
    // SAFETY: refused calls access no memory, and the buffers of the other calls are large enough.
    let error = |call: gk_sample| unsafe { sample(&raw const call, null_mut()) };
    assert_eq!(error(gk_sample { n_vocab: 9, ..call }), GK_BAD_CALL);
    assert_eq!(error(gk_sample { n_vocab: 0, ..call }), GK_BAD_CALL);
    assert_eq!(error(gk_sample { n_rows: -1, ..call }), GK_BAD_CALL);
    assert_eq!(error(gk_sample { sampled: null_mut(), ..call }), GK_BAD_CALL);
    let too_many = GK_MAX_VOCAB as i32 + 1;
    assert_eq!(
        error(gk_sample { n_vocab: too_many, logits_stride: too_many.into(), ..call }),
        GK_BAD_CALL
    );
    assert_eq!(error(gk_sample { n_rows: 0, rows: std::ptr::null(), ..call }), 0);
    assert_eq!(error(call), 0);
}
