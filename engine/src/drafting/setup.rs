//! Which drafters an engine has, and what a request asks of them.

use super::second::{FindModel, SecondModel};
use crate::error::SubmitError;
use galley_drafter_host::Library;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One drafter of an engine.
#[derive(Clone)]
pub struct DrafterSetup {
    /// Its code.
    pub library: Arc<Library>,
    /// Its options, by name; the others have the defaults of its manifest.
    pub options: BTreeMap<String, String>,
}

/// How an engine drafts.
#[derive(Clone)]
pub struct DraftConfig {
    /// The drafters that requests can name. The first is for requests that name none.
    pub drafters: Vec<DrafterSetup>,
    /// Tokens guessed a round, where a request asks for no other number.
    pub draft_length: u32,
    /// The most that a request may ask for.
    pub max_draft_length: u32,
    /// Cached tokens a guess attends to, where a request asks for no other number; None leaves it to
    /// the drafter.
    pub kv_budget: Option<u32>,
    /// Where models are that drafters draft with.
    pub find_model: FindModel,
}

impl Default for DraftConfig {
    /// No drafter, and models by their path.
    fn default() -> Self {
        DraftConfig {
            drafters: Vec::new(),
            draft_length: 3,
            max_draft_length: 16,
            kv_budget: None,
            find_model: Arc::new(|path| Ok(PathBuf::from(path))),
        }
    }
}

/// What a request asks of drafting. None of it changes a token of the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraftRequest {
    /// Who guesses.
    pub drafter: DrafterChoice,
    /// Tokens guessed a round; None takes the engine's number.
    pub draft_length: Option<u32>,
    /// Cached tokens a guess attends to; None takes the engine's number, or the drafter's.
    pub kv_budget: Option<u32>,
}

/// Who guesses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DrafterChoice {
    /// The engine's first drafter, if it has one.
    #[default]
    Default,
    /// Nobody: plain decoding.
    Off,
    /// The drafter of this name.
    Named(String),
}

/// What an engine offers to requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftOffer {
    pub(crate) drafters: Vec<OfferedDrafter>,
    pub(crate) draft_length: u32,
    pub(crate) max_draft_length: u32,
    pub(crate) kv_budget: Option<u32>,
}

/// One drafter of an engine.
#[derive(Clone, Debug)]
pub(crate) struct OfferedDrafter {
    pub(crate) name: String,
    /// Models that it drafts with, beside the target.
    pub(crate) models: Arc<[SecondModel]>,
}

/// What was agreed for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftSettings {
    /// Its place among the engine's drafters.
    pub(crate) drafter: usize,
    /// Models that it drafts with, beside the target.
    pub(crate) models: Arc<[SecondModel]>,
    pub(crate) draft_length: u32,
    pub(crate) kv_budget: Option<u32>,
}

impl DraftSettings {
    /// What `request` gets of `offer`; None is plain decoding.
    pub(crate) fn agree(
        request: &DraftRequest,
        offer: &DraftOffer,
    ) -> Result<Option<Self>, SubmitError> {
        let drafter = match &request.drafter {
            DrafterChoice::Off => return Ok(None),
            DrafterChoice::Default if offer.drafters.is_empty() => return Ok(None),
            DrafterChoice::Default => 0,
            DrafterChoice::Named(name) => {
                let found = offer.drafters.iter().position(|known| known.name == *name);
                found.ok_or_else(|| {
                    let names: Vec<&str> = offer.drafters.iter().map(|d| d.name.as_str()).collect();
                    let known = match names.is_empty() {
                        true => "it has none: start it with --drafter".to_owned(),
                        false => format!("it has {}", names.join(", ")),
                    };
                    SubmitError::invalid("drafter", format!("the engine has no {name:?}; {known}"))
                })?
            }
        };
        let draft_length = request.draft_length.unwrap_or(offer.draft_length);
        if draft_length > offer.max_draft_length {
            let reason = format!("{draft_length} is more than {}", offer.max_draft_length);
            return Err(SubmitError::invalid("draft_length", reason));
        }
        let kv_budget = request.kv_budget.or(offer.kv_budget);
        if kv_budget == Some(0) {
            return Err(SubmitError::invalid(
                "kv_budget",
                "0 tokens: a guess sees at least itself",
            ));
        }
        let models = Arc::clone(&offer.drafters[drafter].models);
        Ok((draft_length > 0).then_some(DraftSettings { drafter, models, draft_length, kv_budget }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> DraftOffer {
        let drafter = |name: &str| OfferedDrafter { name: name.into(), models: Arc::default() };
        let drafters = vec![drafter("one"), drafter("two")];
        DraftOffer { drafters, draft_length: 3, max_draft_length: 8, kv_budget: None }
    }

    #[test]
    fn a_request_gets_what_it_asks_for_or_a_reason() {
        let agree = |request: DraftRequest| DraftSettings::agree(&request, &offer());
        let settings = |drafter, draft_length, kv_budget| {
            let models = Arc::default();
            Ok(Some(DraftSettings { drafter, models, draft_length, kv_budget }))
        };
        let named = |name: &str| DrafterChoice::Named(name.into());
        let off = DraftRequest { drafter: DrafterChoice::Off, ..DraftRequest::default() };
        assert_eq!(agree(DraftRequest::default()), settings(0, 3, None));
        assert_eq!(agree(off), Ok(None));
        let asked =
            DraftRequest { drafter: named("two"), draft_length: Some(8), kv_budget: Some(64) };
        assert_eq!(agree(asked), settings(1, 8, Some(64)));
        let none = DraftRequest { draft_length: Some(0), ..DraftRequest::default() };
        assert_eq!(agree(none), Ok(None));
        let wrong = DraftRequest { drafter: named("three"), ..DraftRequest::default() };
        assert!(agree(wrong).unwrap_err().to_string().contains("one, two"));
        let long = DraftRequest { draft_length: Some(9), ..DraftRequest::default() };
        assert!(agree(long).unwrap_err().to_string().contains("more than 8"));
        assert_eq!(
            DraftSettings::agree(&DraftRequest::default(), &DraftOffer::default()),
            Ok(None)
        );
    }
}
