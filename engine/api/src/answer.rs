//! Answers as JSON.

use galley_engine::{
    Answer, DraftStats, FinishReason, Logprob, Stopped, Submitted, TokenSource, Usage,
};
use serde::Serialize;
use std::time::Duration;

/// The beginning of an answer: all that another request needs to resume it, beside its token ids.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StartedBody<'a> {
    /// The request's number, unique within the engine.
    pub id: u64,
    /// The seed of the sampling noise.
    pub seed: u64,
    /// The fingerprint of the engine.
    pub fingerprint: &'a str,
    /// The tokens of the prompt.
    pub prompt_token_ids: &'a [u32],
    /// The text of the tokens that the request resumes; the text of the output follows it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub resumed_text: &'a str,
}

/// An answer: its beginning, and the output of each of its sequences.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AnswerBody<'a> {
    /// The facts of the accepted request.
    #[serde(flatten)]
    pub started: StartedBody<'a>,
    /// One for each of the request's `n` sequences, in their order.
    pub outputs: Vec<OutputBody<'a>>,
}

/// The output of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OutputBody<'a> {
    /// Index of the sequence among the request's `n`.
    pub index: u32,
    /// The text.
    pub text: &'a str,
    /// The tokens, with the token that ended the sequence.
    pub token_ids: &'a [u32],
    /// The log-probability of each token; absent unless the request asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<LogprobBody<'a>>,
    /// The origin of each token: a drafter and the position in its draft, or None for the target.
    pub sources: Vec<Option<(&'a str, u32)>>,
    /// `stop`, `length` or `cancelled`.
    pub finish_reason: &'static str,
    /// The stop token or stop string that ended the sequence; None if an end token of the model or no token did.
    pub stop_reason: Option<StopReason<'a>>,
    /// Token counts, times and draft statistics.
    pub usage: UsageBody<'a>,
}

/// The log-probability of one token.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogprobBody<'a> {
    /// The token.
    pub token_id: u32,
    /// Its natural log-probability under the model's own logits. Null in JSON if it is minus infinity.
    pub logprob: f32,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top: &'a [(u32, f32)],
}

/// The stop condition of the request that ended a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopReason<'a> {
    /// A token of `stop_token_ids`.
    Token(u32),
    /// A string of `stop`.
    Text(&'a str),
}

/// Token counts and times of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct UsageBody<'a> {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the output.
    pub completion_tokens: usize,
    /// Times that the sequence lost its KV and was computed again.
    pub preemptions: u32,
    /// Milliseconds from the engine's receipt of the request to the first token.
    pub first_token_ms: f64,
    /// Milliseconds from the engine's receipt of the request to the last token.
    pub last_token_ms: f64,
    /// Drafted and accepted tokens.
    pub drafts: DraftBody<'a>,
}

/// Draft statistics of one sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DraftBody<'a> {
    /// Verifications of at least one draft token.
    pub rounds: u64,
    /// Draft tokens that were verified.
    pub drafted: u64,
    /// Draft tokens that were accepted.
    pub accepted: u64,
    /// Accepted draft tokens by their position in the draft.
    pub accepted_per_position: &'a [u64],
}

/// The end of one sequence, for a caller that has its tokens already.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct FinishedBody<'a> {
    index: u32,
    finish_reason: &'static str,
    stop_reason: Option<StopReason<'a>>,
    usage: UsageBody<'a>,
}

impl<'a> StartedBody<'a> {
    /// The beginning of the answer to an accepted request.
    pub fn new(submitted: &'a Submitted) -> Self {
        Self {
            id: submitted.id,
            seed: submitted.seed,
            fingerprint: &submitted.fingerprint,
            prompt_token_ids: &submitted.prompt_tokens,
            resumed_text: &submitted.resumed_text,
        }
    }
}

impl<'a> AnswerBody<'a> {
    /// An answer. `drafters` are the names of [`Engine::drafters`](galley_engine::Engine::drafters).
    pub fn new(submitted: &'a Submitted, answers: &'a [Answer], drafters: &'a [String]) -> Self {
        let outputs = answers.iter().map(|answer| OutputBody::new(answer, drafters)).collect();
        Self { started: StartedBody::new(submitted), outputs }
    }

    /// The answer as one line of JSON.
    pub fn to_json(&self) -> String {
        crate::json::to_string(self)
    }
}

impl<'a> OutputBody<'a> {
    /// The output of one sequence. `drafters` are the names of [`Engine::drafters`](galley_engine::Engine::drafters).
    pub fn new(answer: &'a Answer, drafters: &'a [String]) -> Self {
        Self {
            index: answer.index,
            text: &answer.text,
            token_ids: &answer.tokens,
            logprobs: answer.logprobs.iter().map(LogprobBody::new).collect(),
            sources: answer.sources.iter().map(|source| origin(*source, drafters)).collect(),
            finish_reason: answer.finish.as_str(),
            stop_reason: StopReason::of(&answer.finish),
            usage: UsageBody::new(&answer.usage),
        }
    }
}

impl<'a> LogprobBody<'a> {
    fn new(of: &'a Logprob) -> Self {
        Self { token_id: of.token, logprob: of.logprob, top: &of.top }
    }
}

impl<'a> StopReason<'a> {
    /// The request's own stop condition that ended a sequence.
    pub fn of(finish: &'a FinishReason) -> Option<Self> {
        match finish {
            FinishReason::Stop(Stopped::Token(id)) => Some(Self::Token(*id)),
            FinishReason::Stop(Stopped::Text(text)) => Some(Self::Text(text)),
            FinishReason::Stop(Stopped::Eos(_))
            | FinishReason::Length
            | FinishReason::Cancelled => None,
        }
    }
}

impl<'a> UsageBody<'a> {
    /// The usage of one sequence.
    pub fn new(usage: &'a Usage) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.generated_tokens,
            preemptions: usage.preemptions,
            first_token_ms: ms(usage.first_token),
            last_token_ms: ms(usage.last_token),
            drafts: DraftBody::new(&usage.drafts),
        }
    }
}

impl<'a> DraftBody<'a> {
    /// The draft statistics of one sequence or engine.
    pub fn new(drafts: &'a DraftStats) -> Self {
        Self {
            rounds: drafts.rounds,
            drafted: drafts.drafted,
            accepted: drafts.accepted,
            accepted_per_position: &drafts.accepted_per_position,
        }
    }
}

/// The name of the drafter of a token and the position in its draft; None for a token of the target.
fn origin(source: TokenSource, drafters: &[String]) -> Option<(&str, u32)> {
    match source {
        TokenSource::Target => None,
        TokenSource::Draft { drafter, position } => {
            let name = drafters.get(drafter as usize).map_or("unknown", String::as_str);
            Some((name, position))
        }
    }
}

/// The beginning of an answer as one line of JSON: `id`, `seed`, `fingerprint`, `prompt_token_ids`, and `resumed_text`
/// unless it is empty.
pub fn started_json(submitted: &Submitted) -> String {
    crate::json::to_string(&StartedBody::new(submitted))
}

/// The end of one sequence as one line of JSON: `index`, `finish_reason`, `stop_reason` and `usage`.
pub fn finished_json(index: u32, reason: &FinishReason, usage: &Usage) -> String {
    crate::json::to_string(&FinishedBody {
        index,
        finish_reason: reason.as_str(),
        stop_reason: StopReason::of(reason),
        usage: UsageBody::new(usage),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_end_is_one_line_with_its_usage() {
        let mut usage = Usage::default();
        (usage.prompt_tokens, usage.generated_tokens) = (3, 5);
        usage.first_token = Duration::from_micros(1500);
        let end = |reason: &FinishReason| -> Value {
            serde_json::from_str(&finished_json(1, reason, &usage)).expect("JSON")
        };
        let stop = end(&FinishReason::Stop(Stopped::Eos(2)));
        assert_eq!(
            stop,
            json!({
                "index": 1, "finish_reason": "stop", "stop_reason": null,
                "usage": {
                    "prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 5, "preemptions": 0,
                    "first_token_ms": 1.5, "last_token_ms": 0.0,
                    "drafts": {"rounds": 0, "drafted": 0, "accepted": 0, "accepted_per_position": []},
                },
            })
        );
        let reasons = [
            (FinishReason::Length, "length", Value::Null),
            (FinishReason::Cancelled, "cancelled", Value::Null),
            (FinishReason::Stop(Stopped::Token(7)), "stop", json!(7)),
            (FinishReason::Stop(Stopped::Text("END".into())), "stop", json!("END")),
        ];
        for (reason, finish, stop) in reasons {
            let end = end(&reason);
            assert_eq!((&end["finish_reason"], &end["stop_reason"]), (&json!(finish), &stop));
        }
    }

    #[test]
    fn a_source_is_a_drafter_with_a_position_or_the_target() {
        let drafters = ["ngram".to_owned(), "snap-kv".to_owned()];
        let draft = |drafter| TokenSource::Draft { drafter, position: 4 };
        assert_eq!(origin(TokenSource::Target, &drafters), None);
        assert_eq!(origin(draft(1), &drafters), Some(("snap-kv", 4)));
        assert_eq!(origin(draft(2), &drafters), Some(("unknown", 4)));
    }
}
