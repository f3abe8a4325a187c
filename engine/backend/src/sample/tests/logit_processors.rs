//! Logit processors on the host: the change of each, their order, and the rows that need the host.

use super::super::logit_processors::LogitProcessor;
use super::*;

#[test]
fn bias_penalties_and_bans() {
    let mut scratch = Scratch::default();
    let mut seen = TokenCounts::of_prompt(&[0, 0, 1]);
    seen.push_output(2);
    seen.push_output(2);
    let adjusted = |sampling: &SamplingParams, banned: &[u32]| {
        let mut logits = [2.0, -2.0, 2.0, 1.0];
        let row = SampleRow { seen: Some(&seen), banned, ..sample_row(sampling, 0) };
        row.processors().for_each(|processor| processor.apply(&mut logits));
        logits
    };
    let mut sampling = SamplingParams::greedy();
    assert_eq!(adjusted(&sampling, &[]), [2.0, -2.0, 2.0, 1.0]);
    sampling.repetition_penalty = 2.0;
    assert_eq!(adjusted(&sampling, &[]), [1.0, -4.0, 1.0, 1.0]);
    sampling.presence_penalty = 0.5;
    sampling.frequency_penalty = 0.25;
    assert_eq!(adjusted(&sampling, &[]), [1.0, -4.0, 0.0, 1.0]);
    sampling.logit_bias = vec![(3, 4.0), (99, 1.0)];
    assert_eq!(adjusted(&sampling, &[3, 99]), [1.0, -4.0, 0.0, f32::NEG_INFINITY]);
    assert_eq!(adjusted(&sampling, &[]), [1.0, -4.0, 0.0, 5.0]);
    let row = SampleRow { seen: Some(&seen), ..sample_row(&sampling, 0) };
    assert_eq!(sample_token(&[2.0, -2.0, 2.0, 1.0], &row, &mut scratch).token, 3);
}

#[test]
fn drafted_tokens_are_penalised_as_output() {
    let mut random = Random(8);
    let mut n_missed = 0;
    for case in 0..300 {
        let logits = random.logits(40, 3.0);
        // Some tokens lie outside of the vocabulary.
        let mut tokens =
            |n: u32| -> Vec<u32> { (0..random.word() % n).map(|_| random.word() % 44).collect() };
        let mut seen = TokenCounts::of_prompt(&tokens(30));
        tokens(20).into_iter().for_each(|token| seen.push_output(token));
        let (drafted, banned) = (tokens(9), tokens(3));
        let mut penalty =
            |off: f32| if random.word().is_multiple_of(3) { off } else { random.uniform() * 2.0 };
        let mut sampling = SamplingParams::greedy();
        sampling.repetition_penalty = penalty(1.0);
        sampling.presence_penalty = penalty(0.0);
        sampling.frequency_penalty = penalty(0.0);
        sampling.logit_bias = vec![(drafted.first().copied().unwrap_or(1), 1.5)];
        let adjusted = |seen: &TokenCounts, drafted: &[u32]| {
            let drafted: Vec<_> = drafted.iter().copied().map(InputToken::known).collect();
            let mut logits = logits.clone();
            let row = SampleRow {
                seen: Some(seen),
                drafted: &drafted,
                banned: &banned,
                ..sample_row(&sampling, 0)
            };
            row.processors().for_each(|processor| processor.apply(&mut logits));
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let mut pushed = seen.clone();
        drafted.iter().for_each(|&token| pushed.push_output(token));
        assert_eq!(adjusted(&seen, &drafted), adjusted(&pushed, &[]), "case {case}");
        // Negative control: without the draft tokens the logits differ.
        n_missed += u32::from(adjusted(&seen, &[]) != adjusted(&pushed, &[]));
    }
    assert!(n_missed > 150, "{n_missed}");
}

/// Bias, then penalties: the reversed list gives other logits.
#[test]
fn the_order_of_processors_matters() {
    let seen = TokenCounts::of_prompt(&[1]);
    let mut sampling = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::greedy() };
    sampling.logit_bias = vec![(1, 3.0)];
    let row = SampleRow { seen: Some(&seen), ..sample_row(&sampling, 0) };
    let mut processors: Vec<LogitProcessor<'_>> = row.processors().collect();
    let adjusted = |processors: &[LogitProcessor<'_>]| {
        let mut logits = [1.0, 1.0];
        processors.iter().for_each(|processor| processor.apply(&mut logits));
        logits
    };
    assert_eq!(adjusted(&processors), [1.0, (1.0 + 3.0) / 2.0]);
    processors.reverse();
    assert_eq!(adjusted(&processors), [1.0, 1.0 / 2.0 + 3.0]);
}

#[test]
fn only_penalties_and_proposals_need_the_host() {
    let seen = TokenCounts::of_prompt(&[1]);
    let (plain, mut biased) = (sampling(1.0), sampling(1.0));
    biased.logit_bias = vec![(1, 3.0)];
    let penalised = SamplingParams { presence_penalty: 0.5, ..biased.clone() };
    let of = |sampling| SampleRow { seen: Some(&seen), ..sample_row(sampling, 0) };
    let bans = |row| SampleRow { banned: &[2], early_ends: &[3], ..row };
    for sampling in [&plain, &biased] {
        assert!(!of(sampling).needs_the_host() && !bans(of(sampling)).needs_the_host());
        let draft = SampleRow { rejection: Some(Rejection::Draft), ..of(sampling) };
        assert!(draft.needs_the_host());
    }
    assert!(of(&penalised).needs_the_host() && bans(of(&penalised)).needs_the_host());
}
