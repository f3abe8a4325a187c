//! Events of a request: its tokens, the ends of its sequences, and its error.

use crate::error::RequestError;
use crate::stats::DraftStats;
use crate::stop::FinishReason;
use crate::verify::TokenEvent;
use std::time::Duration;

/// One event of a request.
///
/// Every sequence yields its tokens in order and then [`Event::Finished`]. The request is over when
/// all its sequences have finished, or after one [`Event::Error`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A sequence has a new token.
    Token(TokenEvent),
    /// A sequence has ended.
    Finished {
        /// Index of the sequence among the request's `n`.
        index: u32,
        /// Why the sequence ended.
        reason: FinishReason,
        /// The sequence's token counts and times.
        usage: Usage,
    },
    /// The request cannot continue. No event follows for any of its sequences.
    Error(RequestError),
}

/// Token counts and times of one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens with KV from the prefix cache at first admission.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Number of preemptions. After each, the sequence was recomputed.
    pub preemptions: u32,
    /// Drafted and accepted tokens.
    pub drafts: DraftStats,
    /// Time from the engine thread's receipt of the request to the first token; zero without one.
    pub first_token: Duration,
    /// Time from the engine thread's receipt of the request to the last token.
    pub last_token: Duration,
}
