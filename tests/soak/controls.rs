//! Deliberate faults that a soak must find, in models that fail as an engine could fail.
//!
//! A fault is inserted between the engine and its model. Engine, verifier and kernels stay
//! unchanged and have no switch for it.

use crate::left_to_the_inner_model;
use crate::runs::{Alteration, Altered};
use galley_backend::sample::{SampleRow, SampledToken, SampledTokens};
use galley_backend::{Batch, LayerMask, Observation};
use galley_model::{LanguageModel, ModelIndex, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Attention of several rows sums in another order than attention of one row.
    Sum,
    /// One of a thousand draft tokens that differ from the target's sampled token is accepted.
    Verify,
}

/// [`Control::Verify`] accepts one of this many wrong draft tokens.
const ACCEPTS_ONE_IN: u64 = 1000;

/// The fault to insert into the models of a soak, and its state.
pub struct Faults {
    control: Option<Control>,
    n_wrong_drafts: Arc<AtomicU64>,
}

impl Faults {
    /// The fault `control`, or none.
    pub fn new(control: Option<Control>) -> Self {
        Faults { control, n_wrong_drafts: Arc::default() }
    }

    /// The model with the fault.
    pub fn put_into(&self, model: Box<dyn LanguageModel>) -> Box<dyn LanguageModel> {
        match self.control {
            None => model,
            Some(Control::Sum) => Box::new(Altered(model, Alteration::OtherOrder)),
            Some(Control::Verify) => {
                let n_wrong_drafts = Arc::clone(&self.n_wrong_drafts);
                Box::new(Lenient { model, n_wrong_drafts, taken: None })
            }
        }
    }
}

/// A model that sometimes returns the draft token instead of its own sampled token, so that a
/// verifier that compares the two accepts a wrong draft token.
struct Lenient {
    model: Box<dyn LanguageModel>,
    n_wrong_drafts: Arc<AtomicU64>,
    /// Draft tokens that this model has taken before the engine takes them.
    taken: Option<SampledTokens>,
}

impl Lenient {
    /// The draft token that the verifier compares with the token of `row`: the last draft token
    /// before the next row of the same sequence.
    fn drafted_after(
        &mut self,
        row: &SampleRow<'_>,
        next: Option<&SampleRow<'_>>,
    ) -> Result<Option<u32>> {
        let follows = |next: &&SampleRow<'_>| {
            next.seed == row.seed
                && next.position == row.position + 1
                && next.drafted.len() == row.drafted.len() + 1
        };
        let drafted = next.filter(follows).and_then(|next| next.drafted.last().copied());
        let Some(placeholder) = drafted.and_then(|drafted| drafted.placeholder()) else {
            return Ok(drafted.and_then(|drafted| drafted.id()));
        };
        // The engine takes the draft tokens after this call, but they are needed here already.
        if self.taken.is_none() {
            self.taken = Some(self.model.wait_tokens()?);
        }
        Ok(self.taken.as_ref().and_then(|sampled| sampled.token(placeholder)))
    }
}

impl LanguageModel for Lenient {
    left_to_the_inner_model!(model);

    fn forward(
        &mut self,
        model: ModelIndex,
        batch: &Batch<'_>,
        layers: &LayerMask<'_>,
        observations: &mut [Observation<'_>],
    ) -> Result<()> {
        self.model.forward(model, batch, layers, observations)
    }
    fn sample(&mut self, model: ModelIndex, rows: &[SampleRow<'_>]) -> Result<Vec<SampledToken>> {
        let mut sampled = self.model.sample(model, rows)?;
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.rejection.is_none()) {
            let Some(drafted) = self.drafted_after(row, rows.get(at + 1))? else { continue };
            let is_wrong = drafted != sampled[at].token;
            if is_wrong
                && (self.n_wrong_drafts.fetch_add(1, Ordering::Relaxed) + 1)
                    .is_multiple_of(ACCEPTS_ONE_IN)
            {
                sampled[at].token = drafted;
            }
        }
        Ok(sampled)
    }
    fn wait_tokens(&mut self) -> Result<SampledTokens> {
        match self.taken.take() {
            Some(taken) => Ok(taken),
            None => self.model.wait_tokens(),
        }
    }
}
