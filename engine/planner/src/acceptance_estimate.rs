//! Live estimates of acceptance: the probability that a draft token is accepted if all before it are.
//!
//! A pool of counts a strategy knows the probability by position in the draft and by bucket: the length of the context for
//! a chain, the length of the match for a lookup. A bucket with few counts takes the strategy's overall counts into
//! account, and a sequence multiplies its pool by its own measured over expected count, which begins at 1.
//! Only kept tokens are counted: a draft token after the first rejected one was never looked at.

/// Positions in a draft that are told apart: 1, 2, 3, 4, 5 to 8, and later ones.
const N_POSITIONS: usize = 6;
/// Buckets of a pool.
pub const N_BUCKETS: usize = 5;
/// Pseudo-counts of the prior in the overall pool, and of the overall pool in a bucket.
const PRIOR_WEIGHT: f64 = 8.0;
/// What remains of a pool's counts after a further round: half after 700 rounds.
const POOL_DECAY: f64 = 0.999;
/// What remains of a sequence's counts after a further round: half after 14 rounds.
const SEQUENCE_DECAY: f64 = 0.95;
/// Pseudo-counts that hold a sequence's multiplier at 1.
const SEQUENCE_WEIGHT: f64 = 2.0;
/// No estimate is above this: a draft that was always accepted may still be rejected.
const MOST: f64 = 0.995;

/// The bucket of a chain that drafts after `n_tokens` tokens.
pub fn length_bucket(n_tokens: u32) -> usize {
    match n_tokens {
        0..1024 => 0,
        1024..2048 => 1,
        2048..4096 => 2,
        4096..8192 => 3,
        _ => 4,
    }
}

/// The bucket of a lookup whose latest `n_tokens` tokens occurred before.
pub fn match_bucket(n_tokens: u32) -> usize {
    match n_tokens {
        0..2 => 0,
        2 => 1,
        3..5 => 2,
        5..9 => 3,
        _ => 4,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tried: f64,
    right: f64,
}

/// The acceptance of one strategy, over all sequences.
#[derive(Clone, Debug)]
pub struct AcceptancePool {
    prior: f64,
    overall: [Counts; N_POSITIONS],
    buckets: [[Counts; N_POSITIONS]; N_BUCKETS],
}

/// The acceptance of one sequence beside the pool of its strategy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceAcceptance {
    expected: f64,
    right: f64,
}

impl AcceptancePool {
    /// A pool without counts, which begins at the probability `prior`.
    pub fn new(prior: f64) -> Self {
        AcceptancePool {
            prior,
            overall: [Counts::default(); N_POSITIONS],
            buckets: [[Counts::default(); N_POSITIONS]; N_BUCKETS],
        }
    }

    /// Counts a round: `n_accepted` of `n_drafted` draft tokens were accepted.
    pub fn record(
        &mut self,
        sequence: &mut SequenceAcceptance,
        bucket: usize,
        n_drafted: u32,
        n_accepted: u32,
    ) {
        if n_drafted == 0 {
            return;
        }
        sequence.expected *= SEQUENCE_DECAY;
        sequence.right *= SEQUENCE_DECAY;
        let n_tried = n_drafted.min(n_accepted + 1);
        for position in 1..=n_tried {
            sequence.expected += self.mean(bucket, position);
        }
        sequence.right += f64::from(n_accepted);
        for counts in [&mut self.overall, &mut self.buckets[bucket]] {
            for count in counts.iter_mut() {
                count.tried *= POOL_DECAY;
                count.right *= POOL_DECAY;
            }
            for position in 1..=n_tried {
                let count = &mut counts[place(position)];
                count.tried += 1.0;
                count.right += f64::from(u32::from(position <= n_accepted));
            }
        }
    }

    /// The present estimates, for all sequences of a round.
    pub fn estimates(&self) -> Estimates {
        let deviation = |mean: f64, place: usize| {
            (mean * (1.0 - mean) / (self.overall[place].tried + PRIOR_WEIGHT)).sqrt()
        };
        let mut estimates = Estimates::default();
        for (bucket, of_bucket) in estimates.by_bucket.iter_mut().enumerate() {
            for (place, estimate) in of_bucket.iter_mut().enumerate() {
                let mean = self.mean_at(bucket, place);
                *estimate = Estimate { mean, deviation: deviation(mean, place) };
            }
        }
        estimates
    }

    fn mean(&self, bucket: usize, position: u32) -> f64 {
        self.mean_at(bucket, place(position))
    }

    fn mean_at(&self, bucket: usize, place: usize) -> f64 {
        // A position without counts takes after the one before it.
        let mut prior = self.prior;
        for counts in &self.overall[..=place] {
            prior = (counts.right + PRIOR_WEIGHT * prior) / (counts.tried + PRIOR_WEIGHT);
        }
        let own = self.buckets[bucket][place];
        (own.right + PRIOR_WEIGHT * prior) / (own.tried + PRIOR_WEIGHT)
    }
}

/// The acceptance of one strategy at one time.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    by_bucket: [[Estimate; N_POSITIONS]; N_BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    mean: f64,
    deviation: f64,
}

impl Estimates {
    /// The probability that the draft token at `position` (from 1) is accepted if all before it are, plus `deviations` of
    /// the standard deviation of the strategy's mean.
    pub fn probability(
        &self,
        sequence: &SequenceAcceptance,
        bucket: usize,
        position: u32,
        deviations: f64,
    ) -> f64 {
        let Estimate { mean, deviation } = self.by_bucket[bucket][place(position)];
        (mean * sequence.multiplier() + deviations * deviation).clamp(0.0, MOST)
    }
}

impl SequenceAcceptance {
    /// Right tokens over expected ones.
    fn multiplier(&self) -> f64 {
        (self.right + SEQUENCE_WEIGHT) / (self.expected + SEQUENCE_WEIGHT)
    }
}

fn place(position: u32) -> usize {
    match position {
        0..=4 => position.max(1) as usize - 1,
        5..=8 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records rounds in which each token is accepted with a probability.
    fn rounds(
        pool: &mut AcceptancePool,
        sequence: &mut SequenceAcceptance,
        probability: f64,
        n_rounds: u32,
        state: &mut u64,
    ) {
        for _ in 0..n_rounds {
            let mut n_accepted = 0;
            while n_accepted < 4 {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if (*state >> 33) as f64 / f64::from(1u32 << 31) >= probability {
                    break;
                }
                n_accepted += 1;
            }
            pool.record(sequence, 0, 4, n_accepted);
        }
    }

    #[test]
    fn estimates_reach_the_true_probability_and_follow_it() {
        let (mut pool, mut state) = (AcceptancePool::new(0.7), 1);
        let mut sequence = SequenceAcceptance::default();
        let of =
            |pool: &AcceptancePool, sequence: &_| pool.estimates().probability(sequence, 0, 1, 0.0);
        assert!((of(&pool, &sequence) - 0.7).abs() < 1e-9, "the prior");
        rounds(&mut pool, &mut sequence, 0.5, 500, &mut state);
        assert!((of(&pool, &sequence) - 0.5).abs() < 0.06, "{}", of(&pool, &sequence));
        // The text of the sequence changes: its own counts say so within 32 rounds, the pool's do not.
        rounds(&mut pool, &mut sequence, 0.05, 32, &mut state);
        assert!(of(&pool, &sequence) < 0.3, "{}", of(&pool, &sequence));
        let new = SequenceAcceptance::default();
        assert!(of(&pool, &new) > 0.4, "{}", of(&pool, &new));
    }

    #[test]
    fn a_bucket_without_counts_takes_after_the_others_and_one_with_counts_does_not() {
        let (mut pool, mut state) = (AcceptancePool::new(0.9), 7);
        rounds(&mut pool, &mut SequenceAcceptance::default(), 0.2, 400, &mut state);
        let new = SequenceAcceptance::default();
        assert!((pool.estimates().probability(&new, 3, 1, 0.0) - 0.2).abs() < 0.07);
        for _ in 0..200 {
            pool.record(&mut SequenceAcceptance::default(), 3, 1, 1);
        }
        assert!(pool.estimates().probability(&new, 3, 1, 0.0) > 0.9);
        assert!(pool.estimates().probability(&new, 0, 1, 0.0) < 0.3, "its own counts weigh more");
    }

    #[test]
    fn tokens_after_a_rejected_one_are_not_counted() {
        let mut pool = AcceptancePool::new(0.5);
        for _ in 0..1000 {
            pool.record(&mut SequenceAcceptance::default(), 0, 8, 0);
        }
        let new = SequenceAcceptance::default();
        assert!(pool.estimates().probability(&new, 0, 1, 0.0) < 0.02);
        assert!(pool.overall[1].tried == 0.0, "the second position was never tried");
        assert!(
            pool.estimates().probability(&new, 0, 1, 1.0)
                > pool.estimates().probability(&new, 0, 1, -1.0)
        );
    }
}
