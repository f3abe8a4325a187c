//! Turns sampling flags into requests, and events into outputs.

use crate::args::SamplingArgs;
use anyhow::{Result, bail};
use galley_engine::{
    Event, FinishReason, Prompt, Request, RequestHandle, Stopped, SubmitError, Usage,
};
use serde::Serialize;
use std::time::Duration;

impl SamplingArgs {
    /// A request for `prompt` under these flags.
    pub(crate) fn request(&self, prompt: Prompt) -> Request {
        Request {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            max_tokens: self.max_tokens.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            min_tokens: u32::try_from(self.min_tokens).unwrap_or(u32::MAX),
            stop: self.stop.clone(),
            stop_tokens: self.stop_token_id.clone(),
            ignore_eos: self.ignore_eos,
            ..Request::new(prompt)
        }
    }

    /// Checks the flags that need no model, before the model is loaded: loading takes a while.
    pub(crate) fn check(&self) -> Result<()> {
        self.request(Prompt::Tokens(Vec::new())).check().map_err(by_flag)
    }
}

/// A refusal that names the flag and the variable which the user can change, not the field of the request.
pub(crate) fn by_flag(error: SubmitError) -> anyhow::Error {
    let SubmitError::Invalid { field, reason } = error else { return error.into() };
    if field == "prompt" {
        return anyhow::anyhow!("prompt: {reason}");
    }
    let flag = match field {
        "stop_tokens" => "stop-token-id".to_owned(),
        field => field.replace('_', "-"),
    };
    let twin = flag.to_uppercase().replace('-', "_");
    anyhow::anyhow!("--{flag} (GALLEY_{twin}): {reason}")
}

/// One sequence, as far as it is generated.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Output {
    pub(crate) index: u32,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) text: String,
    pub(crate) finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logprobs: Vec<TokenLogprobs>,
    #[serde(skip)]
    pub(crate) usage: Usage,
}

/// The log-probabilities of one token, for `--logprobs`.
#[derive(Debug, Serialize)]
pub(crate) struct TokenLogprobs {
    pub(crate) token_id: u32,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(u32, f32)>,
}

/// The wait for an event after which [`follow`] calls `on_wait`.
const WAIT: Duration = Duration::from_millis(100);

/// Follows a request to its end. It calls `on_text(index, text)` for every text that becomes final, and `on_wait` if no
/// event comes for a while.
pub(crate) fn follow(
    handle: &mut RequestHandle,
    n: u32,
    mut on_text: impl FnMut(u32, &str) -> Result<()>,
    mut on_wait: impl FnMut(),
) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> =
        (0..n).map(|index| Output { index, ..Output::default() }).collect();
    while !handle.is_over() {
        let Some(event) = handle.recv_timeout(WAIT) else {
            on_wait();
            continue;
        };
        match event {
            Event::Token { index, token, text, logprob, top } => {
                let output = &mut outputs[index as usize];
                output.token_ids.push(token);
                output.text.push_str(&text);
                if let Some(logprob) = logprob {
                    output.logprobs.push(TokenLogprobs { token_id: token, logprob, top });
                }
                if !text.is_empty() {
                    on_text(index, &text)?;
                }
            }
            Event::Finished { index, reason, usage } => {
                let output = &mut outputs[index as usize];
                output.finish_reason = reason.as_str();
                output.usage = usage;
                if let FinishReason::Stop(stopped) = reason {
                    output.stopped_at = Some(match stopped {
                        Stopped::Eos(token) => format!("eos {token}"),
                        Stopped::Token(token) => format!("token {token}"),
                        Stopped::Text(text) => text,
                    });
                }
            }
            Event::Error { message } => bail!("{message}"),
        }
    }
    Ok(outputs)
}
