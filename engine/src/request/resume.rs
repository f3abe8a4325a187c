//! Requests that bring output which exists already.
//!
//! A resumed sequence begins as a preempted one goes on: its tokens are prompt and output, and all of
//! them are computed as a prompt. The noise of sampling depends on seed and position alone. So only
//! three things remain to be rebuilt from the tokens: the counts of penalties, the state of text
//! decoding and stop strings, and the end, if the output has reached it.

use super::{Request, RequestLimits, check_token};
use crate::draft_settings::Verify;
use crate::error::SubmitError;
use crate::output::{TextCodec, TextOutput};
use crate::stop::{FinishReason, StopRules};
use crate::verify::AcceptedRun;

/// The output that a request brings, possibly none.
pub(crate) struct ExistingOutput {
    /// The text as it grows, with the text held back at the end of the existing output.
    pub(crate) text: TextOutput,
    /// The text of the existing output that is final.
    pub(crate) final_text: String,
    /// Why the sequence has ended, if it has.
    pub(crate) finish: Option<FinishReason>,
}

impl ExistingOutput {
    /// The output `generated` after `prompt`. Fails if it goes on after its end.
    pub(super) fn new(
        prompt: &[u32],
        generated: &[u32],
        rules: &StopRules,
        codec: Option<&dyn TextCodec>,
    ) -> Result<Self, SubmitError> {
        let mut text = TextOutput::new(codec, prompt);
        let run = AcceptedRun::replay(generated, rules, &mut text);
        let n_after = generated.len() - run.n_kept();
        if n_after > 0 && run.finish() == Some(&FinishReason::Length) {
            let reason = format!(
                "{} tokens exist already, and max_tokens, or the room for the answer, is {}",
                generated.len(),
                run.n_kept()
            );
            return Err(SubmitError::invalid("generated", reason));
        }
        if n_after > 0 {
            let reason = format!(
                "the answer ends with token {} of {}: {n_after} follow its end",
                run.n_kept(),
                generated.len()
            );
            return Err(SubmitError::invalid("generated", reason));
        }
        Ok(ExistingOutput { final_text: run.text(), finish: run.finish().cloned(), text })
    }
}

/// Checks that the request can be resumed by this engine.
pub(super) fn check(request: &Request, limits: &RequestLimits) -> Result<(), SubmitError> {
    if let Some(wanted) = &request.fingerprint
        && **wanted != *limits.fingerprint
    {
        let reason = format!(
            "the answer comes from an engine {wanted}; this engine is {}",
            limits.fingerprint
        );
        return Err(SubmitError::invalid("fingerprint", reason));
    }
    if request.generated.is_empty() {
        return Ok(());
    }
    for &token in &request.generated {
        check_token("generated", token, limits)?;
    }
    let refused = |reason| Err(SubmitError::invalid("generated", reason));
    if request.n != 1 {
        return refused("only a request for one sequence (n = 1) can be resumed");
    }
    if request.drafting.verify == Verify::Rejection {
        return refused(
            "verification by rejection depends on the drafts, so the answer would not go on as it began: \
             resume with verification by equality",
        );
    }
    if request.seed.is_none() && !request.sampling.is_greedy() {
        let reason =
            "a resumed answer needs the seed of its first part, which the engine has reported";
        return Err(SubmitError::invalid("seed", reason));
    }
    Ok(())
}
