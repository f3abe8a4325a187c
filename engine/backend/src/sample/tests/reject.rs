//! Tests of proposals, of the decision on a draft token, and of odd logits.

use super::super::philox::decision;
use super::super::reject::{Distribution, decide};
use super::*;

/// The probability of every token, from the definition, in f64.
pub(super) fn exact(logits: &[f32], sampling: &SamplingParams) -> Vec<f64> {
    let kept = naive_kept(logits, sampling);
    let mut probabilities = vec![0.0; logits.len()];
    kept.iter().for_each(|&(value, token)| {
        probabilities[token as usize] = (f64::from(value) - f64::from(kept[0].0)).exp();
    });
    let total: f64 = probabilities.iter().sum();
    probabilities.iter().map(|p| p / total).collect()
}

pub(super) fn proposal_of(
    logits: &[f32],
    sampling: &SamplingParams,
    scratch: &mut Scratch,
) -> Option<Proposal> {
    let row = SampleRow { rejection: Some(Rejection::Draft), ..sample_row(sampling, 5) };
    sample_token(logits, &row, scratch).proposal.map(|proposal| *proposal)
}

#[test]
fn proposals_are_what_filters_leave() {
    let mut random = Random(500_000);
    let mut scratch = Scratch::default();
    let (mut n_sparse, mut n_dense) = (0, 0);
    for case in 0..300 {
        let n = [1, 5, 130, 1000, 9000][case % 5];
        let logits = random.logits(n, [0.1, 1.0, 4.0][case % 3]);
        let sampling = random_sampling(&mut random);
        let proposal = proposal_of(&logits, &sampling, &mut scratch).expect("it is not greedy");
        let exact = exact(&logits, &sampling);
        let mut sum = 0.0;
        for (token, &exact) in (0..).zip(&exact) {
            let got = f64::from(proposal.probability(token));
            assert_eq!(got > 0.0, exact > 0.0, "case {case}, token {token}: {sampling:?}");
            assert!((got - exact).abs() <= exact * 1e-5 + 1e-36, "{got} for {exact}");
            sum += got;
        }
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(exact[proposal.token() as usize] > 0.0);
        assert_eq!(proposal.probability(n as u32), 0.0);
        let is_sparse = proposal != Proposal::dense(&proposal, n as u32);
        (n_sparse, n_dense) = (n_sparse + u32::from(is_sparse), n_dense + u32::from(!is_sparse));
    }
    assert!(n_sparse > 50 && n_dense > 50, "{n_sparse} {n_dense}");
}

impl Proposal {
    /// A proposal for tests.
    fn new(token: u32, tokens: &[u32], probabilities: &[f32]) -> Self {
        let from = Distribution { tokens: tokens.to_vec(), probabilities: probabilities.to_vec() };
        Proposal { token, from }
    }

    fn dense(other: &Self, n_vocab: u32) -> Self {
        let probabilities: Vec<f32> = (0..n_vocab).map(|token| other.probability(token)).collect();
        Proposal::new(other.token, &[], &probabilities)
    }
}

const ALMOST_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

#[test]
fn what_the_target_has_at_least_as_much_of_is_accepted() {
    let mut random = Random(600_000);
    for _ in 0..2000 {
        let q = random.uniform() * [1.0, 1e-3, 1e-20][random.word() as usize % 3];
        for p in [q, q.next_up(), q * 1.5] {
            let target = Proposal::new(0, &[], &[p, 1.0 - p]).from;
            let proposal = Proposal::new(0, &[], &[q, 1.0 - q]);
            assert_eq!(decide(&target, &proposal, [ALMOST_ONE, 0.5]), 0, "{p} {q}");
        }
        // Negative control: with a slightly smaller p the draft token is rejected.
        let target = Proposal::new(0, &[], &[q * 0.99, 1.0 - q * 0.99]).from;
        let proposal = Proposal::new(0, &[], &[q, 1.0 - q]);
        assert_eq!(decide(&target, &proposal, [ALMOST_ONE, 0.995]), 1, "{q}");
    }
}

#[test]
fn the_residual_is_drawn_from_in_the_order_of_tokens() {
    // The residual is 0.3 of token 1 and 0.1 of token 7.
    let target = Proposal::new(0, &[1, 4, 7], &[0.5, 0.2, 0.3]).from;
    let proposal = Proposal::new(4, &[0, 1, 4, 7], &[0.1, 0.2, 0.5, 0.2]);
    for (random, expected) in [
        ([0.3, 0.9], 4),
        ([0.5, 0.0], 1),
        ([0.5, 0.74], 1),
        ([0.5, 0.76], 7),
        ([ALMOST_ONE, ALMOST_ONE], 7),
    ] {
        assert_eq!(decide(&target, &proposal, random), expected, "{random:?}");
    }
    // The same with entries for the whole vocabulary: of the draft, of the target, and of both.
    let wide = Proposal::dense(&proposal, 8);
    let target_wide = Proposal::dense(&Proposal { token: 0, from: target.clone() }, 8).from;
    for (target, proposal) in [(&target, &wide), (&target_wide, &proposal), (&target_wide, &wide)] {
        assert_eq!(decide(target, proposal, [0.5, 0.74]), 1);
        assert_eq!(decide(target, proposal, [0.5, 0.76]), 7);
    }
    // The residual is empty: the token is drawn from the target.
    let target = Proposal::new(0, &[], &[0.25, 0.25, 0.5]).from;
    let proposal = Proposal::new(0, &[], &[0.5, 0.25, 0.5]);
    assert_eq!(decide(&target, &proposal, [0.9, 0.3]), 1);
    assert_eq!(decide(&Distribution::default(), &proposal, [0.9, 0.3]), 0);
}

/// A token at -inf in the target is never sampled, and no row causes a panic.
#[test]
fn odd_logits_are_verified_without_a_panic() {
    let mut scratch = Scratch::default();
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows: [&[f32]; 8] = [
        &[nan, nan, nan],
        &[-inf, -inf, -inf],
        &[nan, -inf, -30.0],
        &[0.0, inf, nan],
        &[inf, 1.0, inf],
        &[f32::MIN, f32::MAX, 0.0],
        &[-1e30, 0.0, -inf],
        &[0.0, 0.1, 0.2],
    ];
    let mut n_verified = 0;
    for (draft, target) in rows.iter().flat_map(|d| rows.iter().map(move |t| (d, t))) {
        for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (2, 1.0, 0.0), (0, 0.5, 0.0), (2, 0.9, 0.1)] {
            let sampling =
                SamplingParams { top_k, top_p, min_p, logprobs: Some(2), ..sampling(0.7) };
            let proposal = proposal_of(draft, &sampling, &mut scratch).expect("not greedy");
            assert!((proposal.token() as usize) < 3);
            for position in 0..20 {
                let verify = SampleRow {
                    rejection: Some(Rejection::Verify(&proposal)),
                    ..sample_row(&sampling, position)
                };
                let got = sample_token(target, &verify, &mut scratch);
                let can_be = target[got.token as usize] > -inf;
                let nothing_can_be = target.iter().all(|&l| l.is_nan() || l == -inf);
                assert!(can_be || (nothing_can_be && got.token == 0), "{draft:?} {target:?}");
                assert!(!got.logprob.unwrap().is_nan());
                n_verified += 1;
            }
        }
    }
    assert_eq!(n_verified, 64 * 4 * 20);
    let none = Proposal::new(0, &[0], &[1.0]);
    let one = sampling(1.0);
    let verify = SampleRow { rejection: Some(Rejection::Verify(&none)), ..sample_row(&one, 0) };
    assert_eq!(sample_token(&[], &verify, &mut scratch).token, 0);
}

/// A greedy row ignores the rejection: it has no proposal and samples the target's own token.
#[test]
fn greedy_rows_are_as_they_were() {
    let mut scratch = Scratch::default();
    let greedy = SamplingParams::greedy();
    assert_eq!(proposal_of(&[0.0, 2.0], &greedy, &mut scratch), None);
    let proposal = Proposal::new(0, &[], &[1.0, 0.0]);
    let row = SampleRow { rejection: Some(Rejection::Verify(&proposal)), ..sample_row(&greedy, 0) };
    assert_eq!(sample_token(&[0.0, 2.0], &row, &mut scratch).token, 1);
}

/// The four kinds of random numbers are independent: neither words nor tokens agree more often than
/// by chance.
#[test]
fn drafts_and_decisions_have_noise_of_their_own() {
    let flat = vec![0.0; 4];
    let one = sampling(1.0);
    let mut scratch = Scratch::default();
    let mut drawn = |i: u32, kind: u32| {
        let (seed, position) = (u64::from(i / 4), i % 4);
        let row = SampleRow { seed, ..sample_row(&one, position) };
        let draft = SampleRow { rejection: Some(Rejection::Draft), ..row };
        match kind {
            0 => sample_token(&flat, &row, &mut scratch).token,
            1 => sample_token(&flat, &draft, &mut scratch).token,
            _ => (decision(seed, position)[kind as usize - 2] * 4.0) as u32,
        }
    };
    for kinds in [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [0, 0]] {
        let (statistic, df) =
            chi_square(&[0.0; 16], &one, 30_000, |i| drawn(i, kinds[0]) * 4 + drawn(i, kinds[1]));
        let independent = kinds[0] != kinds[1];
        assert_eq!(statistic < threshold(df), independent, "{kinds:?}: {statistic} with {df}");
    }
}

/// Whether the draft token is accepted or rejected, the reported log-probability is the model's own.
#[test]
fn logprobs_of_verified_tokens_are_of_the_raw_logits() {
    let mut scratch = Scratch::default();
    let logits = Random(9).logits(40, 2.0);
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let sampling = SamplingParams { logprobs: Some(1), top_k: 9, ..sampling(3.0) };
    let mut n_kept = 0;
    for position in 0..200 {
        let proposal = proposal_of(&Random(position).logits(40, 2.0), &sampling, &mut scratch);
        let proposal = proposal.expect("it is not greedy");
        let row = SampleRow {
            rejection: Some(Rejection::Verify(&proposal)),
            ..sample_row(&sampling, position)
        };
        let got = sample_token(&logits, &row, &mut scratch);
        let exact = f64::from(logits[got.token as usize]) - total.ln();
        assert!((f64::from(got.logprob.unwrap()) - exact).abs() < 3e-6 && got.top.len() == 1);
        assert_eq!(got.proposal, None);
        n_kept += u32::from(got.token == proposal.token());
    }
    assert!((10..190).contains(&n_kept), "{n_kept}");
}
