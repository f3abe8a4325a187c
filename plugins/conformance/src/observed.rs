//! The interposer's record of a drafter, as plain data.

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
    /// `gd_host_suffix.matcher`.
    Matcher,
    /// `gd_host_suffix.propose`.
    Propose,
    /// `gd_host_suffix.query`.
    Query,
    /// `gd_host_replay.replay`.
    Replay,
    /// `gd_host_replay.score`.
    Score,
}

impl Function {
    /// Whether the host never records a `guess` that called this function, and so calls `guess` in
    /// every round.
    pub(crate) fn forbids_recording(self) -> bool {
        use Function::{Change, Push, Query, Replay, Rerecord, Row, Score};
        matches!(self, Row | Push | Query | Score | Replay | Change | Rerecord)
    }

    /// Whether the header allows it in every phase.
    pub(crate) fn is_for_any_phase(self) -> bool {
        matches!(self, Function::Log | Function::Describe)
    }

    /// The name in the header.
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
    /// `gd_drafter_feedback.feedback`.
    Feedback,
    /// `gd_drafter.get_extension`.
    GetExtension,
    /// `gd_drafter.destroy`.
    Destroy,
}

impl Callback {
    /// The name in the header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Callback::Create => "create",
            Callback::Activate => "activate",
            Callback::Deactivate => "deactivate",
            Callback::AfterPrefill => "after_prefill",
            Callback::Guess => "guess",
            Callback::End => "end",
            Callback::Cost => "cost",
            Callback::Feedback => "feedback",
            Callback::GetExtension => "get_extension",
            Callback::Destroy => "destroy",
        }
    }
}

/// A kind of violation that a single call shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A struct whose `struct_size` is not its true size, or a reserved field that is not 0.
    Size,
    /// A host function called where its phase tag does not allow it.
    Phase,
    /// A wrong argument or handle.
    Argument,
    /// A pushed draft that is too long or has a token outside the vocabulary.
    Guess,
    /// A function called beyond a table's `struct_size`, or a write where only reading is allowed.
    Beyond,
    /// A log message that is not UTF-8 or too long, or a level that the header does not have.
    Log,
    /// A status that the header does not have for this callback.
    Status,
    /// An answer of get_extension that the header does not allow.
    Extension,
    /// A table of the drafter with a wrong size or without its function.
    Table,
}

/// The result of a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The callback.
    pub callback: Callback,
    /// The status that it returned.
    pub status: gd_status,
    /// The last error that it logged.
    pub sentence: Option<String>,
}

/// The record of a drafter's life.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Breaches by single calls, with a sentence about each.
    pub breaches: Vec<(Breach, String)>,
    /// Host functions that the drafter called.
    pub called: BTreeSet<Function>,
    /// Callbacks that returned a status, in order.
    pub returned: Vec<Returned>,
    /// Whether the host may record the work of the latest `guess`.
    pub is_recordable: bool,
    /// Whether the drafter gave a table for feedback.
    pub has_feedback: bool,
    /// Duration of each `guess` callback.
    pub guesses: Vec<Duration>,
    /// The last error that the running callback logged.
    pub(crate) sentence: Option<String>,
}

/// A shared record: host functions may be called from any thread.
pub(crate) type SharedRecord = Arc<Mutex<Observed>>;

impl Observed {
    pub(crate) fn breach(&mut self, breach: Breach, sentence: String) {
        // The first breaches are enough.
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
