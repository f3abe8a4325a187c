//! Turns sampling flags into requests, and events into answers.

use crate::args::SamplingArgs;
use anyhow::Result;
use galley_engine::{Answer, Answers, Piece, Prompt, Request, RequestHandle, SubmitError};
use std::time::Duration;

impl SamplingArgs {
    /// A request for `prompt` under these flags.
    pub(crate) fn request(&self, prompt: Prompt) -> Request {
        let at_most_u32 = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let mut request = Request::new(prompt)
            .sampling(self.params.clone())
            .min_tokens(at_most_u32(self.min_tokens))
            .stop(self.stop.clone())
            .stop_tokens(self.stop_token_id.clone())
            .ignore_eos(self.ignore_eos);
        request.seed = self.seed;
        request.max_tokens = self.max_tokens.map(at_most_u32);
        request
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

/// The wait for an event after which [`follow`] calls `on_wait`.
const WAIT: Duration = Duration::from_millis(100);

/// Follows a request to its end. It calls `on_text(index, text)` for every text that becomes final, and `on_wait` if no
/// event comes for a while.
pub(crate) fn follow(
    handle: &mut RequestHandle,
    mut on_text: impl FnMut(u32, &str) -> Result<()>,
    mut on_wait: impl FnMut(),
) -> Result<Vec<Answer>> {
    let mut answers = Answers::new();
    while !handle.is_over() {
        let Some(event) = handle.recv_timeout(WAIT) else {
            on_wait();
            continue;
        };
        let piece = Piece::of(event)?;
        if !piece.text.is_empty() {
            on_text(piece.index, &piece.text)?;
        }
        answers.add(piece);
    }
    Ok(answers.finish())
}
