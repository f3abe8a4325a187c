//! The drafters of an engine, and the drafting settings of a request.

mod offer;

pub(crate) use offer::{DraftOffer, DraftPlan, DraftSettings, OfferedDrafter};

use galley_backend::setters;
use galley_drafter_host::Library;
use galley_planner::cost_table::CostTable;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Maps the name of a draft model, as a drafter's option gives it, to its files. The error says how to
/// get the files.
pub type FindModel =
    Arc<dyn Fn(&str) -> Result<PathBuf, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// One drafter of an engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DrafterSetup {
    /// The drafter's code.
    pub library: Arc<Library>,
    /// Options by name. Missing options have the defaults of the manifest.
    pub options: BTreeMap<String, String>,
}

impl DrafterSetup {
    /// A drafter with options by name. [`DrafterSetup::named`] finds a drafter and reads its options.
    pub fn new(library: Arc<Library>, options: BTreeMap<String, String>) -> Self {
        Self { library, options }
    }
}

/// The drafting configuration of an engine.
#[derive(Clone)]
#[non_exhaustive]
pub struct DraftConfig {
    /// The drafters that requests can name. The first serves requests that name none.
    pub drafters: Vec<DrafterSetup>,
    /// Draft tokens a round, where a request sets no other number.
    pub draft_length: u32,
    /// The largest draft length that a request may set.
    pub max_draft_length: u32,
    /// Cached tokens that a draft token attends to, where a request sets no other number. None
    /// leaves it to the drafter.
    pub kv_budget: Option<u32>,
    /// Whether the engine chooses drafter and draft length, round by round, for requests that name no drafter. They are
    /// chosen for requests that ask for it ([`DrafterChoice::Auto`]) in any case.
    pub auto: bool,
    /// Longest time between two tokens of a sequence that the choice allows, if plain decoding keeps within it.
    pub max_inter_token: Option<Duration>,
    /// Times of the device, for the choice. None takes those of an earlier calibration, or measures the device when the
    /// engine starts.
    pub costs: Option<CostTable>,
    /// Whether the device may be measured, and the times kept in the user's cache folder. Otherwise the choice begins with
    /// estimates, which the engine corrects while it runs.
    pub calibrates: bool,
    /// Waits for draft tokens before they are verified. On an asynchronous device this costs one
    /// wait a round, and separates the time of drafting from that of verification
    /// ([`Stats`](crate::Stats)). For measurements.
    pub waits_for_drafts: bool,
    /// Most bytes of suffix indexes, for drafters that search earlier text: three quarters for the
    /// tokens of sequences, and a quarter for earlier outputs of requests with the same salt, if a
    /// drafter searches them. Beyond it, indexes cover the latest text alone, and the oldest outputs
    /// leave first. 0 is no index.
    pub suffix_bytes: usize,
    /// Finds the files of the draft models that drafters name.
    pub find_model: FindModel,
}

/// The default of [`DraftConfig::suffix_bytes`]: room for 192 sequences of 8,000 tokens, beside
/// earlier outputs.
pub const SUFFIX_BYTES: usize = 256 << 20;

/// Most bytes of the suffix index of one sequence. The index of a longer sequence covers its latest
/// tokens.
pub const SUFFIX_BYTES_OF_A_SEQUENCE: usize = 32 << 20;

/// Bytes of a suffix index for each token that it has room for, if all tokens differ as much as they
/// can. Room grows by doubling.
pub const SUFFIX_BYTES_A_TOKEN: usize = 128;

impl Default for DraftConfig {
    /// No drafter. The name of a draft model is its path.
    fn default() -> Self {
        DraftConfig {
            drafters: Vec::new(),
            draft_length: 3,
            max_draft_length: 16,
            kv_budget: None,
            auto: false,
            max_inter_token: None,
            costs: None,
            calibrates: true,
            waits_for_drafts: false,
            suffix_bytes: SUFFIX_BYTES,
            find_model: Arc::new(|path| Ok(PathBuf::from(path))),
        }
    }
}

impl fmt::Debug for DraftConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names every field, so that a new field does not compile without its place here.
        let Self {
            drafters,
            draft_length,
            max_draft_length,
            kv_budget,
            auto,
            max_inter_token,
            costs,
            calibrates,
            waits_for_drafts,
            suffix_bytes,
            find_model: _,
        } = self;
        f.debug_struct("DraftConfig")
            .field("drafters", drafters)
            .field("draft_length", draft_length)
            .field("max_draft_length", max_draft_length)
            .field("kv_budget", kv_budget)
            .field("auto", auto)
            .field("max_inter_token", max_inter_token)
            .field("costs", costs)
            .field("calibrates", calibrates)
            .field("waits_for_drafts", waits_for_drafts)
            .field("suffix_bytes", suffix_bytes)
            .field("find_model", &format_args!("(a function)"))
            .finish()
    }
}

setters! {
    impl DraftConfig;
    /// Sets the drafters that requests can name. The first serves requests that name none.
    drafters(drafters: impl IntoIterator<Item = DrafterSetup>) =>
        drafters = drafters.into_iter().collect();
    /// Sets the draft tokens a round, where a request sets no other number.
    draft_length(n_tokens: u32) => draft_length = n_tokens;
    /// Sets the largest draft length that a request may set.
    max_draft_length(n_tokens: u32) => max_draft_length = n_tokens;
    /// Sets the cached tokens that a draft token attends to, where a request sets no other number.
    /// None leaves it to the drafter.
    kv_budget(n_tokens: impl Into<Option<u32>>) => kv_budget = n_tokens.into();
    /// Sets whether the engine chooses for requests that name no drafter.
    auto(is_on: bool) => auto = is_on;
    /// Sets the longest time between two tokens that the choice allows.
    max_inter_token(time: impl Into<Option<Duration>>) => max_inter_token = time.into();
    /// Sets the times of the device, for the choice.
    costs(costs: impl Into<Option<CostTable>>) => costs = costs.into();
    /// Sets whether the device may be measured when the engine starts.
    calibrates(is_on: bool) => calibrates = is_on;
    /// Sets whether the engine waits for draft tokens before it verifies them.
    waits_for_drafts(waits: bool) => waits_for_drafts = waits;
    /// Sets the most bytes of suffix indexes.
    suffix_bytes(n_bytes: usize) => suffix_bytes = n_bytes;
    /// Sets the function that finds the files of draft models.
    find_model(find_model: FindModel) => find_model = find_model;
}

/// The drafting settings of a request. Only `verify` can change the tokens of the output.
///
/// ```
/// use galley_engine::{DraftRequest, Verify};
/// let drafting = DraftRequest::default().draft_length(4).verify(Verify::Rejection);
/// assert_eq!((drafting.draft_length, drafting.kv_budget), (Some(4), None));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DraftRequest {
    /// The drafter to use.
    pub drafter: DrafterChoice,
    /// Draft tokens a round; None takes the engine's number.
    pub draft_length: Option<u32>,
    /// Cached tokens that a draft token attends to; None takes the engine's number, or the
    /// drafter's.
    pub kv_budget: Option<u32>,
    /// How draft tokens are verified.
    pub verify: Verify,
}

impl DraftRequest {
    /// No drafter: plain decoding.
    pub fn off() -> Self {
        Self::default().drafter(DrafterChoice::Off)
    }
}

setters! {
    impl DraftRequest;
    /// Sets the drafter.
    drafter(drafter: DrafterChoice) => drafter = drafter;
    /// Sets the draft tokens a round; None takes the engine's number.
    draft_length(n_tokens: impl Into<Option<u32>>) => draft_length = n_tokens.into();
    /// Sets the cached tokens that a draft token attends to; None takes the engine's number, or the
    /// drafter's.
    kv_budget(n_tokens: impl Into<Option<u32>>) => kv_budget = n_tokens.into();
    /// Sets how draft tokens are verified.
    verify(verify: Verify) => verify = verify;
}

/// The name that stands for the engine's choice, in place of a drafter's.
pub const AUTO: &str = "auto";

/// Whether a name stands for no drafter, in place of a drafter's: `none` and `off` mean the same.
pub fn is_none(name: &str) -> bool {
    matches!(name, "none" | "off" | "")
}

/// The drafter that a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DrafterChoice {
    /// The engine's choice, if it is set to choose ([`DraftConfig::auto`]), else its first drafter, if it has one.
    #[default]
    Default,
    /// The engine's choice among its drafters and plain decoding, round by round. The request's draft length is the longest
    /// that it chooses.
    Auto,
    /// No drafter: plain decoding.
    Off,
    /// The drafter of this name.
    Named(String),
}

/// How draft tokens are verified. Equality always holds for greedy requests, and for draft tokens
/// that were not sampled from a distribution (looked up, or pushed by a drafter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Keeps draft tokens that equal the target's own tokens. The output is that of plain decoding,
    /// token for token.
    #[default]
    Equality,
    /// Keeps the draft tokens that rejection sampling accepts, usually a few more than equality
    /// keeps. The output has the target's distribution, but which output it is depends on the
    /// drafter, the draft length and the schedule, with the same seed too. Keeps the distribution
    /// of each draft token in memory until it is verified: 4 bytes per token of the vocabulary.
    Rejection,
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verify::Equality => "equality",
            Verify::Rejection => "rejection",
        })
    }
}

impl std::str::FromStr for Verify {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "equality" => Ok(Verify::Equality),
            "rejection" => Ok(Verify::Rejection),
            _ => Err(format!("unknown verification {s:?}: expected equality or rejection")),
        }
    }
}
