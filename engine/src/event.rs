//! What a request's owner hears.

use crate::drafting::DraftStats;
use std::time::Duration;

/// One thing that happened to a request.
///
/// Every sequence yields its tokens in order and then [`Event::Finished`]; the request is over when
/// all have, or with one [`Event::Error`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was kept.
    Token {
        /// Which of the request's `n` sequences.
        index: u32,
        /// The token. The one that ends a sequence is reported, too.
        token: u32,
        /// Text that became final with it: the texts of a sequence, one after the other, are its
        /// output. Empty without a tokenizer, within a character, and while it may be the start of
        /// a stop string.
        text: String,
        /// Its log-probability under the model's own logits, if asked for.
        logprob: Option<f32>,
        /// The most likely tokens and their log-probabilities, if asked for.
        top: Vec<(u32, f32)>,
    },
    /// A sequence has ended.
    Finished {
        /// Which of the request's `n` sequences.
        index: u32,
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// The request cannot be continued; nothing follows for any of its sequences.
    Error {
        /// What happened.
        message: String,
    },
}

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It said so.
    Stop(Stopped),
    /// It reached `max_tokens`.
    Length,
    /// Its owner, or the engine's, wants no more of it.
    Cancelled,
}

impl FinishReason {
    /// The name that APIs use.
    pub fn as_str(&self) -> &'static str {
        match self {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// What a sequence stopped at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A token with which the model ends a text.
    Eos(u32),
    /// One of the request's stop tokens.
    Token(u32),
    /// One of the request's stop strings.
    Text(String),
}

/// What a sequence took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them whose KV came from the prefix cache at first admission.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// How often it was preempted and recomputed.
    pub preemptions: u32,
    /// What drafting has brought it.
    pub drafts: DraftStats,
    /// From the engine's taking the request in to the first token; zero if there is none.
    pub first_token: Duration,
    /// From the engine's taking the request in to the last token.
    pub last_token: Duration,
}
