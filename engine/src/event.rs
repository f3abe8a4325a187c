//! Events of a request: its beginning, its tokens, the ends of its sequences, and its error.

use crate::error::RequestError;
use crate::stats::DraftStats;
use crate::stop::FinishReason;
use crate::verify::TokenEvent;
use std::sync::Arc;
use std::time::Duration;

/// One event of a request.
///
/// Every sequence yields its tokens in order and then [`Event::Finished`]. The request is over when
/// all its sequences have finished, or after one [`Event::Error`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The engine has received the request. The first event of a request in an
    /// [`EventQueue`](crate::EventQueue); a [`RequestHandle`](crate::RequestHandle) has
    /// [`submitted`](crate::RequestHandle::submitted) instead.
    Started(Submitted),
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

/// An event in an [`EventQueue`](crate::EventQueue), with the request that it belongs to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueuedEvent {
    /// The caller's tag of the request.
    pub tag: u64,
    /// The request's number ([`Submitted::id`]).
    pub id: u64,
    /// The event.
    pub event: Event,
    /// Whether no event of the request follows.
    pub is_last: bool,
}

/// The facts of an accepted request: all that another request needs to continue its output, beside
/// the generated tokens ([`Request::resume`](crate::Request::resume)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// The request's number, unique within the engine.
    pub id: u64,
    /// The seed: the request's own, or the seed that was drawn for it.
    pub seed: u64,
    /// The prompt.
    pub prompt_tokens: Arc<[u32]>,
    /// The fingerprint of the engine ([`Engine::fingerprint`](crate::Engine::fingerprint)).
    pub fingerprint: Arc<str>,
    /// The final text of the [generated tokens](crate::Request::generated) that the request came
    /// with. The text of its events follows this text. Empty without such tokens.
    pub resumed_text: String,
}

/// Token counts and times of one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens with KV from the prefix cache at first admission: of the prompt, and of output that
    /// the request came with.
    pub cached_tokens: usize,
    /// Tokens generated, including tokens that the request came with.
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
