//! The drafters that an engine offers, and the plans that follow from a request.

use super::{DraftRequest, DrafterChoice, Verify};
use crate::draft_cache::{DraftCache, DraftModel};
use crate::error::SubmitError;
use std::sync::Arc;

/// The drafters and limits that an engine offers to requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftOffer {
    pub(crate) drafters: Vec<OfferedDrafter>,
    pub(crate) draft_length: u32,
    pub(crate) max_draft_length: u32,
    /// The longest draft that a step can verify. Longer draft lengths are cut to it.
    pub(crate) longest_draft: u32,
    pub(crate) kv_budget: Option<u32>,
    /// Whether requests that name no drafter leave the choice to the engine.
    pub(crate) auto: bool,
}

/// A drafter that requests can name.
#[derive(Clone, Debug)]
pub(crate) struct OfferedDrafter {
    pub(crate) name: String,
    /// The draft models that the drafter uses.
    pub(crate) models: Arc<[DraftModel]>,
}

/// The drafting settings agreed for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftSettings {
    /// The plan of the first round. If the engine chooses: no drafter, the longest draft and the KV budget.
    pub(crate) plan: DraftPlan,
    pub(crate) verify: Verify,
    /// Whether the engine chooses the plan of each round.
    pub(crate) is_auto: bool,
}

/// How one sequence drafts in a round. A plan changes no token of the output, so it may change
/// between any two rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftPlan {
    /// Index among the engine's drafters; None if no drafter drafts.
    pub(crate) drafter: Option<usize>,
    /// The draft models that the drafter uses.
    pub(crate) models: Arc<[DraftModel]>,
    /// Most draft tokens.
    pub(crate) draft_length: u32,
    /// Cached tokens that a draft token attends to; None takes the drafter's number.
    pub(crate) kv_budget: Option<u32>,
}

impl DraftPlan {
    /// Plain decoding.
    pub(crate) fn off() -> Self {
        DraftPlan { drafter: None, models: Arc::default(), draft_length: 0, kv_budget: None }
    }

    /// An empty KV cache for each draft model. Sequences of one salt share KV.
    pub(crate) fn caches(&self, cache_salt: u64) -> Vec<DraftCache> {
        self.models.iter().map(|&model| DraftCache::new(model, cache_salt)).collect()
    }
}

impl DraftOffer {
    /// The settings that a request gets; None is plain decoding.
    pub(crate) fn agree(
        &self,
        request: &DraftRequest,
    ) -> Result<Option<DraftSettings>, SubmitError> {
        let chosen = self.choose(&request.drafter)?;
        let most = match chosen {
            Chosen::Plain => return Ok(None),
            Chosen::Auto => self.max_draft_length,
            Chosen::Drafter(_) => self.draft_length,
        };
        let draft_length = request.draft_length.unwrap_or(most);
        if draft_length > self.max_draft_length {
            let reason = format!("{draft_length} is more than {}", self.max_draft_length);
            return Err(SubmitError::invalid("draft_length", reason));
        }
        let kv_budget = request.kv_budget.or(self.kv_budget);
        if kv_budget == Some(0) {
            return Err(SubmitError::invalid(
                "kv_budget",
                "0 tokens: a draft token sees at least itself",
            ));
        }
        let draft_length = draft_length.min(self.longest_draft);
        let plan = match chosen {
            Chosen::Drafter(drafter) => self.plan(drafter, draft_length, kv_budget),
            Chosen::Auto | Chosen::Plain => {
                DraftPlan { draft_length, kv_budget, ..DraftPlan::off() }
            }
        };
        let is_auto = chosen == Chosen::Auto;
        let settings = DraftSettings { plan, verify: request.verify, is_auto };
        Ok((settings.plan.draft_length > 0).then_some(settings))
    }

    /// A plan with one of these drafters.
    pub(crate) fn plan(
        &self,
        drafter: usize,
        draft_length: u32,
        kv_budget: Option<u32>,
    ) -> DraftPlan {
        let models = Arc::clone(&self.drafters[drafter].models);
        DraftPlan { drafter: Some(drafter), models, draft_length, kv_budget }
    }

    /// The drafter that a request chooses.
    fn choose(&self, choice: &DrafterChoice) -> Result<Chosen, SubmitError> {
        let has_none = self.drafters.is_empty();
        match choice {
            DrafterChoice::Off => Ok(Chosen::Plain),
            DrafterChoice::Default | DrafterChoice::Auto if has_none => Ok(Chosen::Plain),
            DrafterChoice::Auto => Ok(Chosen::Auto),
            DrafterChoice::Default if self.auto => Ok(Chosen::Auto),
            DrafterChoice::Default => Ok(Chosen::Drafter(0)),
            DrafterChoice::Named(name) => {
                let found = self.drafters.iter().position(|known| known.name == *name);
                found.map(Chosen::Drafter).ok_or_else(|| {
                    let names: Vec<&str> = self.drafters.iter().map(|d| d.name.as_str()).collect();
                    let known = match names.is_empty() {
                        true => "it has none: start it with --drafter".to_owned(),
                        false => format!("it has {}", names.join(", ")),
                    };
                    SubmitError::invalid("drafter", format!("the engine has no {name:?}; {known}"))
                })
            }
        }
    }
}

/// The drafter of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    /// None: plain decoding.
    Plain,
    /// The drafter with this index.
    Drafter(usize),
    /// The engine's choice, round by round.
    Auto,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> DraftOffer {
        let drafter = |name: &str| OfferedDrafter { name: name.into(), models: Arc::default() };
        let drafters = vec![drafter("one"), drafter("two")];
        DraftOffer {
            drafters,
            draft_length: 3,
            max_draft_length: 8,
            longest_draft: 100,
            kv_budget: None,
            auto: false,
        }
    }

    #[test]
    fn a_request_gets_what_it_asks_for_or_a_reason() {
        let agree = |request: DraftRequest| offer().agree(&request);
        let settings = |drafter, draft_length, kv_budget| {
            let plan = offer().plan(drafter, draft_length, kv_budget);
            Ok(Some(DraftSettings { plan, verify: Verify::Equality, is_auto: false }))
        };
        let named = |name: &str| DrafterChoice::Named(name.into());
        let off = DraftRequest::off();
        assert_eq!(agree(DraftRequest::default()), settings(0, 3, None));
        assert_eq!(agree(off), Ok(None));
        let (drafter, draft_length, kv_budget) = (named("two"), Some(8), Some(64));
        let asked = DraftRequest { drafter, draft_length, kv_budget, ..DraftRequest::default() };
        assert_eq!(agree(asked.clone()), settings(1, 8, Some(64)));
        let by_rejection = DraftRequest { verify: Verify::Rejection, ..DraftRequest::default() };
        assert_eq!(agree(by_rejection).unwrap().unwrap().verify, Verify::Rejection);
        let none = DraftRequest { draft_length: Some(0), ..DraftRequest::default() };
        assert_eq!(agree(none), Ok(None));
        let eight = DraftRequest { draft_length: Some(8), ..DraftRequest::default() };
        let agree_of = |longest_draft| DraftOffer { longest_draft, ..offer() }.agree(&eight);
        let length =
            |longest| agree_of(longest).unwrap().map(|settings| settings.plan.draft_length);
        assert_eq!((length(5), length(0)), (Some(5), None), "a step cannot verify more");
        let wrong = DraftRequest { drafter: named("three"), ..DraftRequest::default() };
        assert!(agree(wrong).unwrap_err().to_string().contains("one, two"));
        let long = DraftRequest { draft_length: Some(9), ..DraftRequest::default() };
        assert!(agree(long).unwrap_err().to_string().contains("more than 8"));
        assert_eq!(DraftOffer::default().agree(&DraftRequest::default()), Ok(None));
        // The engine's choice: for requests that ask for it, and for all others if the engine is set to choose.
        let auto = DraftRequest::default().drafter(DrafterChoice::Auto);
        let chosen = offer().agree(&auto).unwrap().expect("drafters to choose from");
        assert_eq!(
            (chosen.plan.drafter, chosen.plan.draft_length, chosen.is_auto),
            (None, 8, true)
        );
        let chooses = DraftOffer { auto: true, ..offer() };
        assert_eq!(chooses.agree(&DraftRequest::default()), Ok(Some(chosen)));
        assert_eq!(chooses.agree(&DraftRequest::off()), Ok(None));
        assert!(!chooses.agree(&asked).unwrap().unwrap().is_auto, "it names its drafter");
        assert_eq!(DraftOffer { auto: true, ..DraftOffer::default() }.agree(&auto), Ok(None));
    }
}
