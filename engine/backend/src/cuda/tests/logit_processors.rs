//! The edits of the kernel give the same logits as the list of processors on the host.

use super::super::logit_processors::edits;
use super::*;
use crate::sample::{LogitProcessor, SampleRow, SamplingParams, TokenCounts};

const N_VOCAB: usize = 20;

fn logits() -> Vec<f32> {
    (0..N_VOCAB).map(|i| 0.37 * (i * 7 % N_VOCAB) as f32 - 3.0).collect()
}

/// The bits of a row after its processors on the host.
fn on_host(row: &SampleRow<'_>) -> Vec<u32> {
    let mut logits = logits();
    row.processors().for_each(|processor| processor.apply(&mut logits));
    logits.into_iter().map(f32::to_bits).collect()
}

/// The bits of a row after the kernel's edits; None if only the host can sample the row.
fn on_device(backend: &mut CudaBackend, row: &SampleRow<'_>) -> Option<Vec<u32>> {
    let is_edited = !edits(row.processors(), N_VOCAB)?.is_empty();
    let mut tensor = backend.f32_rows(1, N_VOCAB).unwrap();
    backend.write(&mut tensor, 0, &logits());
    backend.sample(&tensor, &[*row]).unwrap();
    let edited = backend.sampler.edited.take().expect("the buffer of edited rows");
    let logits = if is_edited { edited.download(0, N_VOCAB).unwrap() } else { logits() };
    Some(logits.into_iter().map(f32::to_bits).collect())
}

fn counts() -> TokenCounts {
    let mut seen = TokenCounts::of_prompt(&[3, 5, 3, 11, 99]);
    [5, 5, 7, 98].into_iter().for_each(|token| seen.push_output(token));
    seen
}

/// Settings with a bias and all penalties.
fn settings() -> SamplingParams {
    SamplingParams {
        repetition_penalty: 1.3,
        presence_penalty: 0.2,
        frequency_penalty: 0.7,
        logit_bias: vec![(3, 1.5), (8, -2.0), (40, 1.0)],
        ..SamplingParams::greedy()
    }
}

fn drafted() -> [InputToken; 5] {
    [7, 2, 7, 3, 77].map(InputToken::known)
}

/// A row with every processor.
fn row_of<'a>(
    sampling: &'a SamplingParams,
    seen: &'a TokenCounts,
    drafted: &'a [InputToken],
) -> SampleRow<'a> {
    SampleRow {
        logits_row: 0,
        sampling,
        seed: 0,
        position: 0,
        seen: Some(seen),
        drafted,
        banned: &[2, 3, 19, 60],
        early_ends: &[4, 19, 61],
        reports: false,
        rejection: None,
    }
}

#[test]
fn edits_do_what_processors_do_on_the_host() {
    let Some(mut backend) = backend() else { return };
    let (penalties, seen) = (settings(), counts());
    let no_bias = SamplingParams { logit_bias: Vec::new(), ..penalties.clone() };
    let biased_twice = SamplingParams { logit_bias: vec![(3, 0.1), (3, 0.2)], ..penalties.clone() };
    let only_bias =
        SamplingParams { logit_bias: penalties.logit_bias.clone(), ..SamplingParams::greedy() };
    let nothing = SamplingParams::greedy();
    let mut n_processors = [0; 5];
    for sampling in [&nothing, &only_bias, &no_bias, &penalties, &biased_twice] {
        let drafted = drafted();
        let all = row_of(sampling, &seen, &drafted);
        for seen in [None, Some(&seen)] {
            for drafted in [&[][..], all.drafted] {
                for banned in [&[][..], all.banned] {
                    for early_ends in [&[][..], all.early_ends] {
                        let row = SampleRow { seen, drafted, banned, early_ends, ..all };
                        let is_possible = !std::ptr::eq(sampling, &raw const biased_twice);
                        let expected = is_possible.then(|| on_host(&row));
                        assert_eq!(on_device(&mut backend, &row), expected, "{row:?}");
                        n_processors[row.processors().count()] += 1;
                    }
                }
            }
        }
    }
    assert!(n_processors.iter().all(|n| *n > 0), "none, each alone, and all: {n_processors:?}");
}

/// The control: without one processor, or with one more occurrence of a token, the logits differ.
#[test]
fn a_missing_processor_is_noticed() {
    let Some(mut backend) = backend() else { return };
    let (penalties, seen) = (settings(), counts());
    let no_bias = SamplingParams { logit_bias: Vec::new(), ..penalties.clone() };
    let drafted = drafted();
    let row = row_of(&penalties, &seen, &drafted);
    let others = [7, 7, 7, 2, 3].map(InputToken::known);
    let wrong = [
        SampleRow { sampling: &no_bias, ..row },
        SampleRow { seen: None, ..row },
        SampleRow { banned: &[], ..row },
        SampleRow { early_ends: &[], ..row },
        SampleRow { drafted: &others, ..row },
    ];
    let expected = on_host(&row);
    assert_eq!(on_device(&mut backend, &row), Some(expected.clone()));
    for wrong in wrong {
        let got = on_device(&mut backend, &wrong).expect("no token has two biases");
        assert_ne!(got, expected, "{wrong:?}");
    }
}

/// An edit adds the bias first, so a list with another order is left to the host.
#[test]
fn edits_keep_the_order_of_the_list() {
    let (penalties, seen) = (settings(), counts());
    let drafted = drafted();
    let row = row_of(&penalties, &seen, &drafted);
    let mut processors: Vec<LogitProcessor<'_>> = row.processors().collect();
    assert!(edits(processors.iter().copied(), N_VOCAB).is_some());
    processors.swap(0, 1);
    assert!(edits(processors, N_VOCAB).is_none());
}
