//! The device samples the same tokens as the host.

use super::*;
use crate::sample::{Rejection, SampleRow, SamplingParams, TokenCounts};

#[test]
fn picks_are_those_of_the_host() {
    let Some(mut backend) = backend() else { return };
    let (n_rows, n_vocab) = (3, 300);
    let mut values = Values(11);
    let logits: Vec<f32> = values.take(n_rows * n_vocab).iter().map(|x| x * 8.0).collect();
    let mut seen = TokenCounts::of_prompt(&[3, 5, 11]);
    [5, 5, 7].into_iter().for_each(|token| seen.push_output(token));
    let plain = SamplingParams { temperature: 0.9, logprobs: Some(3), ..SamplingParams::greedy() };
    let settings = [
        SamplingParams { logprobs: Some(0), ..SamplingParams::greedy() },
        plain.clone(),
        SamplingParams { top_k: 20, top_p: 0.8, min_p: 0.01, ..plain.clone() },
        SamplingParams {
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            frequency_penalty: 0.2,
            logit_bias: vec![(9, 4.0)],
            ..plain.clone()
        },
        // A token with two biases: only the host can sample this row.
        SamplingParams { logit_bias: vec![(9, 4.0), (9, 0.5)], ..plain },
    ];
    let mut rows = Vec::new();
    let drafted = [5, 8].map(InputToken::known);
    for sampling in &settings {
        for rejection in [None, Some(Rejection::Draft)] {
            for (logits_row, banned) in [(2, &[][..]), (0, &[9, 40]), (1, &[])] {
                let at = rows.len() as u32;
                rows.push(SampleRow {
                    logits_row,
                    sampling,
                    seed: u64::from(at) * 77,
                    position: at,
                    seen: sampling.has_penalties().then_some(&seen),
                    drafted: &drafted,
                    banned,
                    early_ends: &[],
                    reports: true,
                    rejection,
                });
            }
        }
    }
    fn run<B: TestBackend>(
        backend: &mut B,
        logits: &[f32],
        n_vocab: usize,
        rows: &[SampleRow<'_>],
    ) -> Vec<crate::sample::SampledToken> {
        let mut tensor = backend.f32_rows(logits.len() / n_vocab, n_vocab).unwrap();
        for (row, values) in logits.chunks(n_vocab).enumerate() {
            backend.write(&mut tensor, row, values);
        }
        backend.sample(&tensor, rows).unwrap()
    }
    let expected = run(&mut cpu(), &logits, n_vocab, &rows);
    let got = run(&mut backend, &logits, n_vocab, &rows);
    assert_eq!(expected.len(), got.len());
    for ((expected, got), row) in expected.iter().zip(&got).zip(&rows) {
        assert_eq!((expected.token, &expected.proposal), (got.token, &got.proposal), "{row:?}");
        let (e, g) = (expected.logprob.unwrap(), got.logprob.unwrap());
        assert!((e - g).abs() < 1e-5, "{e} {g} {row:?}");
        assert_eq!(expected.top.len(), got.top.len());
        for (expected, got) in expected.top.iter().zip(&got.top) {
            assert_eq!(expected.0, got.0);
            assert!((expected.1 - got.1).abs() < 1e-5);
        }
    }
    // The control: other seeds sample other tokens.
    let others: Vec<SampleRow<'_>> =
        rows.iter().map(|row| SampleRow { seed: row.seed + 1, ..*row }).collect();
    let others = run(&mut backend, &logits, n_vocab, &others);
    assert!(others.iter().zip(&expected).any(|(other, sampled)| other.token != sampled.token));
    let outside = [SampleRow { logits_row: 99, ..rows[0] }];
    let tensor = backend.f32_rows(1, n_vocab).unwrap();
    assert!(backend.sample(&tensor, &outside).is_err());
}
