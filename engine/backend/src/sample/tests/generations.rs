//! Verification by rejection over whole generations, drafted and verified round by round, against
//! the joint distribution of the target. Wrong verifiers must fail the same comparison.

use super::super::philox::{decision, draft_seed, word};
use super::super::reject::decide;
use super::reject::exact;
use super::*;

const N_TOKENS: usize = 3;
const DRAFT_LENGTH: usize = 2;
const N_GENERATIONS: u32 = 16_000;

/// A target and a draft over a few tokens. The distribution after a context is rotated by the sum
/// of the context's tokens, so the second token depends on the first.
struct Case {
    name: &'static str,
    target: &'static [f32],
    draft: &'static [f32],
    sampling: SamplingParams,
}

impl Case {
    fn logits(probabilities: &[f32], context: &[u32]) -> Vec<f32> {
        let by = context.iter().sum::<u32>() as usize;
        (0..probabilities.len())
            .map(|t| probabilities[(t + by) % probabilities.len()].ln())
            .collect()
    }

    fn target(&self, context: &[u32]) -> Vec<f32> {
        Self::logits(self.target, context)
    }

    fn draft(&self, context: &[u32]) -> Vec<f32> {
        Self::logits(self.draft, context)
    }

    fn row<'a>(
        &'a self,
        seed: u64,
        first: u32,
        context: &[u32],
        rejection: Option<Rejection<'a>>,
    ) -> SampleRow<'a> {
        SampleRow { seed, rejection, ..sample_row(&self.sampling, first + context.len() as u32) }
    }

    /// The target's probability of every token after a context, from the definition, in f64.
    fn exact(&self, context: &[u32]) -> Vec<f64> {
        exact(&self.target(context), &self.sampling)
    }

    /// The probability that the first draft token is accepted.
    fn overlap(&self) -> f64 {
        let draft = exact(&self.draft(&[]), &self.sampling);
        self.exact(&[]).iter().zip(draft).map(|(p, q)| p.min(q)).sum()
    }
}

fn cases() -> Vec<Case> {
    let one = sampling(1.0);
    let case = |name, target, draft, sampling| Case { name, target, draft, sampling };
    vec![
        case("two tokens", &[0.7, 0.3], &[0.4, 0.6], one.clone()),
        case(
            "a draft where the target hardly is",
            &[0.9, 0.07, 0.03],
            &[0.02, 0.48, 0.5],
            one.clone(),
        ),
        case("all but disjoint", &[0.9995, 0.0005], &[0.002, 0.998], one.clone()),
        case("disjoint", &[0.6, 0.4, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.3, 0.3, 0.4], one.clone()),
        case("one token in common", &[0.5, 0.3, 0.2, 0.0], &[0.0, 0.0, 0.6, 0.4], one.clone()),
        case("equal", &[0.4, 0.3, 0.2, 0.1], &[0.4, 0.3, 0.2, 0.1], one.clone()),
        case("warmer", &[0.5, 0.2, 0.15, 0.1, 0.05], &[0.1, 0.4, 0.2, 0.1, 0.2], sampling(1.6)),
        case(
            "top-k",
            &[0.4, 0.3, 0.15, 0.1, 0.05],
            &[0.1, 0.15, 0.3, 0.05, 0.4],
            SamplingParams { top_k: 3, ..one.clone() },
        ),
        case(
            "top-p",
            &[0.4, 0.3, 0.15, 0.1, 0.05],
            &[0.05, 0.3, 0.35, 0.2, 0.1],
            SamplingParams { top_p: 0.8, ..sampling(0.9) },
        ),
        case(
            "min-p",
            &[0.4, 0.3, 0.15, 0.1, 0.05],
            &[0.5, 0.05, 0.2, 0.2, 0.05],
            SamplingParams { min_p: 0.3, ..one },
        ),
    ]
}

/// A verifier: takes the target's logits, the row and its proposal, and returns the verified token.
type Verifier = fn(&[f32], &SampleRow<'_>, &Proposal, &mut Scratch) -> u32;

fn right(logits: &[f32], row: &SampleRow<'_>, _: &Proposal, scratch: &mut Scratch) -> u32 {
    sample_token(logits, row, scratch).token
}

fn accepts_always(_: &[f32], _: &SampleRow<'_>, proposal: &Proposal, _: &mut Scratch) -> u32 {
    proposal.token()
}

/// Wrong: draws from p after a rejection, not from the residual max(p - q, 0).
fn forgets_the_residual(
    logits: &[f32],
    row: &SampleRow<'_>,
    proposal: &Proposal,
    scratch: &mut Scratch,
) -> u32 {
    let token = sample_token(logits, row, scratch).token;
    match token == proposal.token() {
        true => token,
        false => sample_token(logits, &SampleRow { rejection: None, ..*row }, scratch).token,
    }
}

/// Wrong: decides with the noise of the draft.
fn reuses_noise(
    logits: &[f32],
    row: &SampleRow<'_>,
    proposal: &Proposal,
    scratch: &mut Scratch,
) -> u32 {
    sample_token(logits, row, scratch);
    let noise = word(draft_seed(row.seed), row.position, proposal.token());
    let [_, at] = decision(row.seed, row.position);
    decide(&scratch.target, proposal, [f64::from(noise) / 4_294_967_296.0, at])
}

/// The tokens of one generation, and the number of accepted draft tokens.
fn generate(case: &Case, seed: u64, first: u32, verify: Verifier) -> (Vec<u32>, usize) {
    let mut scratch = Scratch::default();
    let (mut tokens, mut n_accepted) = (Vec::new(), 0);
    while tokens.len() < N_TOKENS {
        let (mut drafted, mut proposals) = (tokens.clone(), Vec::new());
        for _ in 0..DRAFT_LENGTH {
            let row = case.row(seed, first, &drafted, Some(Rejection::Draft));
            let sampled = sample_token(&case.draft(&drafted), &row, &mut scratch);
            let proposal = sampled.proposal.expect("a draft says what from");
            assert_eq!(proposal.token(), sampled.token);
            drafted.push(sampled.token);
            proposals.push(*proposal);
        }
        let rejected = proposals.iter().any(|proposal| {
            let row = case.row(seed, first, &tokens, Some(Rejection::Verify(proposal)));
            let token = verify(&case.target(&tokens), &row, proposal, &mut scratch);
            tokens.push(token);
            n_accepted += usize::from(token == proposal.token());
            token != proposal.token()
        });
        if !rejected {
            let row = case.row(seed, first, &tokens, None);
            tokens.push(sample_token(&case.target(&tokens), &row, &mut scratch).token);
        }
    }
    tokens.truncate(N_TOKENS);
    (tokens, n_accepted)
}

/// Pearson's statistic over all possible generations, its degrees of freedom, and whether any draft
/// token was accepted. Infinite if the target cannot generate one of the generations.
fn joint_statistic(case: &Case, verify: Verifier) -> (f64, f64, bool) {
    let n_vocab = case.target.len();
    let mut counts = vec![0u32; n_vocab.pow(N_TOKENS as u32)];
    let mut n_accepted = 0;
    for i in 0..N_GENERATIONS {
        // Many seeds, and several positions of each.
        let (seed, first) = (u64::from(i / 8), i % 8 * N_TOKENS as u32);
        let (tokens, accepted) = generate(case, seed, first, verify);
        counts[tokens.iter().fold(0, |at, &token| at * n_vocab + token as usize)] += 1;
        n_accepted += accepted;
    }
    let (mut statistic, mut n_cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    for (at, &count) in counts.iter().enumerate() {
        let digit = |i: usize| (at / n_vocab.pow((N_TOKENS - 1 - i) as u32) % n_vocab) as u32;
        let tokens: Vec<u32> = (0..N_TOKENS).map(digit).collect();
        let probability: f64 =
            (0..N_TOKENS).map(|i| case.exact(&tokens[..i])[tokens[i] as usize]).product();
        let (expected, got) = (probability * f64::from(N_GENERATIONS), f64::from(count));
        if probability == 0.0 && count > 0 {
            return (f64::INFINITY, 1.0, n_accepted > 0);
        }
        if expected >= 10.0 {
            statistic += (got - expected) * (got - expected) / expected;
            n_cells += 1.0;
        } else {
            rest = (rest.0 + expected, rest.1 + got);
        }
    }
    if rest.0 > 0.0 {
        statistic += (rest.1 - rest.0) * (rest.1 - rest.0) / rest.0;
        n_cells += 1.0;
    }
    (statistic, f64::max(n_cells - 1.0, 1.0), n_accepted > 0)
}

#[test]
fn generations_follow_the_target() {
    for case in cases() {
        let (statistic, df, accepted) = joint_statistic(&case, right);
        println!("{}: {statistic:.0} df {df}, overlap {:.3}", case.name, case.overlap());
        assert!(statistic < threshold(df), "{}: {statistic} with {df}", case.name);
        assert_eq!(accepted, case.overlap() > 0.0, "{}", case.name);
    }
}

/// Negative control of the test above.
#[test]
fn wrong_verifiers_do_not_follow_the_target() {
    let wrong: [(&str, Verifier); 3] = [
        ("accepts always", accepts_always),
        ("forgets the residual", forgets_the_residual),
        ("reuses noise", reuses_noise),
    ];
    let mut n_cases = 0;
    // Some wrong verifiers are right for equal or disjoint distributions, so these cases are skipped.
    for case in cases().iter().filter(|case| (0.05..0.99).contains(&case.overlap())) {
        n_cases += 1;
        for (name, verify) in wrong {
            let (statistic, df, _) = joint_statistic(case, verify);
            println!("{}, {name}: {statistic:.0} df {df}", case.name);
            assert!(statistic > threshold(df), "{}, {name}: {statistic} with {df}", case.name);
        }
    }
    assert!(n_cases >= 7, "{n_cases}");
}
