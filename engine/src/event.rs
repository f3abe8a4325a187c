//! Events of a request: its tokens, the ends of its sequences, and its error.

use crate::drafting::DraftStats;
use crate::error::RequestError;
use std::time::Duration;

/// One event of a request.
///
/// Every sequence yields its tokens in order and then [`Event::Finished`]. The request is over when
/// all its sequences have finished, or after one [`Event::Error`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A sequence has a new token.
    Token {
        /// Index of the sequence among the request's `n`.
        index: u32,
        /// The token. The token that ends a sequence is reported, too.
        token: u32,
        /// Text that became final with this token. The concatenated texts of a sequence are its
        /// output. Empty without a tokenizer, inside a character, and while the text may be the
        /// start of a stop string.
        text: String,
        /// The token's log-probability under the model's own logits, if the request asks for it.
        logprob: Option<f32>,
        /// The most likely tokens and their log-probabilities, if the request asks for them.
        top: Vec<(u32, f32)>,
    },
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

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It reached an end token of the model, a stop token or a stop string.
    Stop(Stopped),
    /// It reached `max_tokens`.
    Length,
    /// The caller cancelled the request or dropped its handle, or the engine was shut down.
    Cancelled,
}

impl FinishReason {
    /// The reason's name in APIs.
    pub fn as_str(&self) -> &'static str {
        match self {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// The end token, stop token or stop string at which a sequence stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// One of the model's end tokens.
    Eos(u32),
    /// One of the request's stop tokens.
    Token(u32),
    /// One of the request's stop strings.
    Text(String),
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
