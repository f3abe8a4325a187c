//! SWIFT's search for the layers that are missed least (arXiv 2410.06916, section 4): propose a
//! mask, replay it, keep it if it is better.
//!
//! All choices here are random. The paper also makes every 25th choice by Bayesian optimisation.

use galley_drafter::{Control, LayerMask, Layers, Model, Options, ReplayScore, Result, Step};

// The paper's stopping rule.
const GOOD_ENOUGH: f64 = 0.95;
const MAX_NOT_BETTER: u32 = 300;

/// A search that makes one move in every round.
pub(crate) struct MaskSearch {
    choices: Choices,
    candidate: Layers,
    tried: LayerMask,
    next: Move,
    window_tokens: u32,
    every_rounds: u32,
    best: f64,
    n_not_better: u32,
}

#[derive(Clone, Copy)]
enum Move {
    Replay { after_rounds: u32 },
    Judge,
    Stop,
}

impl MaskSearch {
    /// A search that begins with the score of the mask `start`.
    pub(crate) fn new(
        host: &Control<'_>,
        options: &Options,
        start: LayerMask,
        n_layers: u32,
    ) -> Result<Self> {
        host.need_replay()?;
        let ratio: f64 = options.parse("ratio")?;
        if !(0.0..1.0).contains(&ratio) {
            return Err(options.refuse("ratio", "it lies between 0 and 1"));
        }
        let (window_tokens, every_rounds) = (options.parse("window")?, options.parse("every")?);
        if window_tokens < 2 {
            return Err(options.refuse("window", "a token and one that follows it are needed"));
        }
        if every_rounds < 2 {
            return Err(options.refuse("every", "one round replays and the next one judges"));
        }
        Ok(Self {
            choices: Choices::new(options.parse("seed")?, ratio, n_layers),
            candidate: host.mask(Model::TARGET, &start)?,
            tried: start,
            next: Move::Replay { after_rounds: 0 },
            window_tokens,
            every_rounds,
            best: -1.0,
            n_not_better: 0,
        })
    }

    /// Makes a move. Guesses are made with the mask `layers`. While the search runs, the host asks
    /// for a guess every round.
    pub(crate) fn advance(&mut self, step: &Step<'_>, layers: Layers) -> Result<()> {
        self.next = match self.next {
            Move::Stop => return Ok(()),
            Move::Replay { after_rounds: 0 } => {
                step.replay(self.candidate, self.window_tokens)?;
                Move::Judge
            }
            Move::Replay { after_rounds } => Move::Replay { after_rounds: after_rounds - 1 },
            Move::Judge => match step.score(self.candidate)? {
                // No output is long enough yet.
                ReplayScore { n_compared: 0, .. } => Move::Replay { after_rounds: 0 },
                score => {
                    if self.judge(score) {
                        step.change(layers, &self.tried)?;
                    }
                    self.propose(step)?
                }
            },
        };
        step.rerecord();
        Ok(())
    }

    /// Whether the mask `tried` is better than all masks before.
    fn judge(&mut self, score: ReplayScore) -> bool {
        let matched = score.n_matched as f64 / score.n_compared as f64;
        let better = matched > self.best;
        if better {
            (self.best, self.n_not_better) = (matched, 0);
        } else {
            self.n_not_better += 1;
        }
        better
    }

    fn propose(&mut self, step: &Step<'_>) -> Result<Move> {
        if self.best >= GOOD_ENOUGH || self.n_not_better >= MAX_NOT_BETTER {
            return Ok(Move::Stop);
        }
        self.choices.draw(&mut self.tried);
        step.change(self.candidate, &self.tried)?; // from the next round on
        Ok(Move::Replay { after_rounds: self.every_rounds - 2 })
    }
}

/// Every second layer but the first and the last.
pub(crate) fn every_second(n_layers: u32) -> Result<LayerMask> {
    let skipped: Vec<u32> = (1..n_layers.saturating_sub(1)).step_by(2).collect();
    LayerMask::skipping(&skipped, &skipped, n_layers)
}

/// Random sets of sublayers to skip, all of one size. The first and the last layer always run.
struct Choices {
    inner: Vec<u32>, // the layers between the first and the last; each draw shuffles the front
    n_skipped: usize,
    state: u64,
}

impl Choices {
    fn new(seed: u64, ratio: f64, n_layers: u32) -> Self {
        let inner: Vec<u32> = (1..n_layers.saturating_sub(1)).collect();
        let n_skipped = (inner.len() as f64 * ratio) as usize;
        Self { inner, n_skipped, state: seed }
    }

    /// Draws into an existing mask, because a step must not allocate.
    fn draw(&mut self, mask: &mut LayerMask) {
        self.shuffle();
        for (i, layer) in self.inner.iter().enumerate() {
            mask.set_attention(*layer, i >= self.n_skipped);
        }
        self.shuffle();
        for (i, layer) in self.inner.iter().enumerate() {
            mask.set_mlp(*layer, i >= self.n_skipped);
        }
    }

    fn shuffle(&mut self) {
        for i in 0..self.n_skipped {
            let n_left = (self.inner.len() - i) as u64;
            let other = i + (self.random() % n_left) as usize;
            self.inner.swap(i, other);
        }
    }

    /// SplitMix64: small, and the same on every machine.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_layer_spares_the_ends() {
        let runs = |n| {
            let mask = every_second(n).unwrap();
            (0..n).map(|layer| mask.runs_attention(layer) && mask.runs_mlp(layer)).collect()
        };
        let is: [Vec<bool>; 3] = [runs(5), runs(2), runs(0)];
        assert_eq!(is, [vec![true, false, true, false, true], vec![true; 2], vec![]]);
    }

    #[test]
    fn draws_differ_but_not_in_size_and_repeat_with_their_seed() {
        let draws = |seed| {
            let mut choices = Choices::new(seed, 0.45, 32);
            let mut mask = every_second(32).unwrap();
            let mut draw = || {
                choices.draw(&mut mask);
                mask.clone()
            };
            (0..20).map(|_| draw()).collect::<Vec<_>>()
        };
        let masks = draws(7);
        for mask in &masks {
            let n_attention = (0..32).filter(|layer| !mask.runs_attention(*layer)).count();
            let n_mlp = (0..32).filter(|layer| !mask.runs_mlp(*layer)).count();
            assert_eq!((n_attention, n_mlp), (13, 13));
            assert!(mask.runs_attention(0) && mask.runs_mlp(31), "the ends run");
        }
        assert_ne!(masks[0], masks[1]);
        assert_eq!(masks, draws(7));
        assert_ne!(masks, draws(8));
    }

    #[test]
    fn tiny_models_have_nothing_to_skip() {
        let mut mask = LayerMask::all(2);
        Choices::new(1, 0.9, 2).draw(&mut mask);
        assert_eq!(mask, LayerMask::all(2));
    }
}
