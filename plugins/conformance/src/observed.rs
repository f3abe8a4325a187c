//! What is seen of a drafter from between it and its host, as plain data.

use galley_drafter_abi::gd_status;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A function that the host lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// `gd_host.log`.
    Log,
    /// `gd_host.rerecord`.
    Rerecord,
    /// `gd_host_models.describe`.
    Describe,
    /// `gd_host_models.load`.
    Load,
    /// `gd_host_views.window`.
    Window,
    /// `gd_host_observe.observe`.
    Observe,
    /// `gd_host_layers.mask`.
    Mask,
    /// `gd_host_layers.change`.
    Change,
    /// `gd_host_chain.chain`.
    Chain,
    /// `gd_host_tokens.lookup`.
    Lookup,
    /// `gd_host_tokens.row`.
    Row,
    /// `gd_host_tokens.push`.
    Push,
    /// `gd_host_replay.replay`.
    Replay,
    /// `gd_host_replay.score`.
    Score,
}

impl Function {
    /// Whether a guess that called it is asked for every round anyway.
    pub(crate) fn forbids_recording(self) -> bool {
        use Function::{Change, Push, Replay, Rerecord, Row, Score};
        matches!(self, Row | Push | Score | Replay | Change | Rerecord)
    }

    /// As the header calls it.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A function of the drafter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// `gd_library.create`.
    Create,
    /// `gd_drafter.activate`.
    Activate,
    /// `gd_drafter.deactivate`.
    Deactivate,
    /// `gd_drafter.after_prefill`.
    AfterPrefill,
    /// `gd_drafter.guess`.
    Guess,
    /// `gd_drafter.end`.
    End,
    /// `gd_drafter.cost`.
    Cost,
    /// `gd_drafter.destroy`.
    Destroy,
}

impl Callback {
    /// As the header calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Callback::Create => "create",
            Callback::Activate => "activate",
            Callback::Deactivate => "deactivate",
            Callback::AfterPrefill => "after_prefill",
            Callback::Guess => "guess",
            Callback::End => "end",
            Callback::Cost => "cost",
            Callback::Destroy => "destroy",
        }
    }
}

/// What was broken, as far as a single call shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A struct that does not say its true size, or a reserved field that is not 0.
    Size,
    /// A host function called where its tag does not allow it.
    Phase,
    /// A wrong argument or handle.
    Argument,
    /// A pushed guess that is too long, or has a token outside the vocabulary.
    Guess,
    /// A field beyond `struct_size`, or something written where only reading is allowed.
    Beyond,
    /// A sentence that is no text.
    Log,
    /// A status that the header does not have.
    Status,
}

/// What a callback came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Which.
    pub callback: Callback,
    /// Its status.
    pub status: gd_status,
    /// The last error that it logged.
    pub sentence: Option<String>,
}

/// All that was seen in a drafter's life.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What single calls broke, with a sentence each.
    pub breaches: Vec<(Breach, String)>,
    /// Host functions that were called.
    pub called: BTreeSet<Function>,
    /// Callbacks with a status, in order.
    pub returned: Vec<Returned>,
    /// Whether the host may keep what the latest guess enqueued.
    pub is_recordable: bool,
    /// How long the guess callbacks took, one each.
    pub guesses: Vec<Duration>,
    /// The last error logged in the callback that runs.
    pub(crate) sentence: Option<String>,
}

/// Host functions may come from any thread.
pub(crate) type Shared = Arc<Mutex<Observed>>;

impl Observed {
    pub(crate) fn breach(&mut self, breach: Breach, sentence: String) {
        // The first ones say it all.
        if self.breaches.len() < MAX_BREACHES {
            self.breaches.push((breach, sentence));
        }
    }

    /// The first sentence about a breach of this kind.
    pub(crate) fn first(&self, breach: Breach) -> Option<&str> {
        self.breaches.iter().find(|(kind, _)| *kind == breach).map(|(_, text)| text.as_str())
    }

    /// The first callback that failed.
    pub(crate) fn failure(&self) -> Option<&Returned> {
        self.returned.iter().find(|returned| returned.status < 0)
    }
}

const MAX_BREACHES: usize = 64;
