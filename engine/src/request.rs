//! Requests, as callers write them and as the engine uses them.

mod resume;
mod setters;

use crate::draft_settings::{DraftOffer, DraftRequest, DraftSettings};
use crate::error::SubmitError;
use crate::output::TextCodec;
use crate::stop::StopRules;
use galley_backend::sample::{SamplingParams, TokenCounts};
use galley_model::end_tokens::EndTokens;
pub(crate) use resume::ExistingOutput;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// A prompt, and the settings of its generation.
///
/// ```
/// use galley_engine::Request;
/// let request = Request::new("Once upon a time").temperature(0.8).top_p(0.95).max_tokens(64);
/// assert_eq!((request.sampling.temperature, request.max_tokens), (0.8, Some(64)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The text or tokens to continue.
    pub prompt: Prompt,
    /// Whether the output is an answer in a chat. Such an answer also ends at control tokens with
    /// the spelling of an end of turn ([`EndTokens`]). Set by [`Request::new`] for a
    /// [`Prompt::Rendered`].
    pub chat: bool,
    /// How tokens are sampled from the model's distribution.
    pub sampling: SamplingParams,
    /// Makes sampling reproducible. None draws a seed ([`crate::RequestHandle::seed()`]).
    pub seed: Option<u64>,
    /// Number of sequences to generate from the prompt.
    pub n: u32,
    /// Most tokens to generate; None is as many as fit.
    pub max_tokens: Option<u32>,
    /// No stop condition ends a sequence before it has this many output tokens.
    pub min_tokens: u32,
    /// Strings that end a sequence. They need a tokenizer.
    pub stop: Vec<String>,
    /// Tokens that end a sequence, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Whether the output includes the text of the stop token or stop string.
    pub include_stop: bool,
    /// Never sample the model's end tokens.
    pub ignore_eos: bool,
    /// Output that exists already: tokens that an earlier answer to the same request generated. The
    /// output goes on after them as if it had never been interrupted: the same tokens, text,
    /// log-probabilities, end and token counts. Needs the [`seed`](Self::seed) of that answer if
    /// tokens are sampled; needs `n` = 1 and verification by equality.
    pub generated: Vec<u32>,
    /// The fingerprint of the engine that generated them ([`crate::Engine::fingerprint`]). An engine
    /// with another fingerprint refuses the request. None is not checked.
    pub fingerprint: Option<String>,
    /// Lower runs first. Requests of the same priority run in the order of submission.
    pub priority: i32,
    /// Sequences share KV, and the earlier outputs in which a drafter looks, only with sequences of the
    /// same salt.
    pub cache_salt: u64,
    /// The drafter and its number of draft tokens. Drafting changes how fast tokens come, never
    /// which tokens, unless the request asks for verification by rejection
    /// ([`crate::Verify::Rejection`]).
    pub drafting: DraftRequest,
}

impl Request {
    /// A request for one sequence with the model's own distribution (temperature 1).
    pub fn new(prompt: impl Into<Prompt>) -> Self {
        let prompt = prompt.into();
        Request {
            chat: matches!(prompt, Prompt::Rendered(_)),
            prompt,
            sampling: SamplingParams::default(),
            seed: None,
            n: 1,
            max_tokens: None,
            min_tokens: 0,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            include_stop: false,
            ignore_eos: false,
            generated: Vec::new(),
            fingerprint: None,
            priority: 0,
            cache_salt: 0,
            drafting: DraftRequest::default(),
        }
    }

    /// Does the checks of [`crate::Engine::submit`] that depend on no model, so that a mistake is
    /// found before a model is loaded. An error names the first wrong field.
    pub fn check(&self) -> Result<(), SubmitError> {
        check_numbers(&self.sampling)?;
        check_lengths(self)
    }
}

/// The text or tokens that a request continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text. The tokenizer adds the special tokens that the model expects around it.
    Text(String),
    /// A text that has all its special tokens already, such as a rendered chat template.
    Rendered(String),
    /// Token ids, used unchanged.
    Tokens(Vec<u32>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Text(text)
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl<P: Into<Prompt>> From<P> for Request {
    fn from(prompt: P) -> Self {
        Request::new(prompt)
    }
}

/// Limits of the engine and its model, against which requests are checked.
#[derive(Clone, Debug)]
pub(crate) struct RequestLimits {
    pub(crate) vocab_size: usize,
    /// Longest sequence that the model supports, tokens.
    pub(crate) max_context: usize,
    /// Slots in the whole KV cache.
    pub(crate) kv_tokens: usize,
    pub(crate) max_num_seqs: usize,
    /// See [`crate::Engine::fingerprint`].
    pub(crate) fingerprint: Arc<str>,
    pub(crate) end_tokens: EndTokens,
    pub(crate) drafting: DraftOffer,
}

impl RequestLimits {
    /// Prompt and output together. The last token needs no slot, because no token follows it.
    pub(crate) fn max_tokens_of_sequence(&self) -> usize {
        self.max_context.min(self.kv_tokens.saturating_add(1))
    }
}

/// A request that can be served, in the engine's terms. Only [`ValidRequest::new`] makes one.
pub(crate) struct ValidRequest {
    /// The prompt, and after it the output that exists already.
    pub(crate) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(crate) n_prompt: usize,
    pub(crate) sampling: SamplingParams,
    pub(crate) seed: u64,
    pub(crate) n: u32,
    pub(crate) stop: StopRules,
    /// Counts of tokens, if penalties need them.
    pub(crate) seen: Option<TokenCounts>,
    /// The text of the output, as far as it exists.
    pub(crate) output: ExistingOutput,
    pub(crate) priority: i32,
    pub(crate) cache_salt: u64,
    /// None means plain decoding.
    pub(crate) draft: Option<DraftSettings>,
}

const MAX_STOP_STRINGS: usize = 64;
const MAX_STOP_STRING_BYTES: usize = 1024;
const MAX_STOP_TOKENS: usize = 1024;
const MAX_BIASES: usize = 4096;
/// Logits reach a few hundred at most.
const MAX_BIAS: f32 = 1e4;
const MAX_LOGPROBS: u32 = 128;
/// Above this, the output is noise.
const MAX_TEMPERATURE: f32 = 100.0;

impl ValidRequest {
    /// Checks every field of a request. An error names the first wrong field.
    pub(crate) fn new(
        request: Request,
        limits: &RequestLimits,
        text: Option<&dyn TextCodec>,
    ) -> Result<Self, SubmitError> {
        request.check()?;
        check_against(&request, limits, text.is_some())?;
        resume::check(&request, limits)?;
        let draft = limits.drafting.agree(&request.drafting)?;
        let sampling = request.sampling;
        let prompt = tokens_of(request.prompt, limits, text)?;
        let max_tokens = max_tokens_of(request.max_tokens, prompt.len(), limits)?;
        if request.min_tokens > max_tokens {
            return Err(SubmitError::invalid(
                "min_tokens",
                format!("{} is more than max_tokens, {max_tokens}", request.min_tokens),
            ));
        }
        let ends = match request.chat {
            true => limits.end_tokens.of_chats(),
            false => limits.end_tokens.of_texts(),
        };
        let (eos, banned) =
            if request.ignore_eos { (Vec::new(), ends) } else { (ends, Vec::new()) };
        let stop = StopRules::new(
            request.stop,
            request.stop_tokens,
            eos,
            banned,
            request.min_tokens as usize,
            max_tokens as usize,
            request.include_stop,
        );
        let output = ExistingOutput::new(&prompt, &request.generated, &stop, text)?;
        let mut seen = sampling.has_penalties().then(|| TokenCounts::of_prompt(&prompt));
        if let Some(seen) = &mut seen {
            request.generated.iter().for_each(|&token| seen.push_output(token));
        }
        Ok(ValidRequest {
            seen,
            n_prompt: prompt.len(),
            tokens: [prompt, request.generated].concat(),
            output,
            sampling,
            seed: request.seed.unwrap_or_else(random_seed),
            n: request.n,
            stop,
            priority: request.priority,
            cache_salt: request.cache_salt,
            draft,
        })
    }
}

fn check_numbers(sampling: &SamplingParams) -> Result<(), SubmitError> {
    let range = |field, value: f32, low: f32, high: f32| {
        let inside = (low..=high).contains(&value); // false for NaN
        let reason = || format!("{value} is not between {low} and {high}");
        if inside { Ok(()) } else { Err(SubmitError::invalid(field, reason())) }
    };
    range("temperature", sampling.temperature, 0.0, MAX_TEMPERATURE)?;
    range("top_p", sampling.top_p, f32::MIN_POSITIVE, 1.0)?;
    range("min_p", sampling.min_p, 0.0, 1.0)?;
    range("repetition_penalty", sampling.repetition_penalty, 0.01, 100.0)?;
    range("presence_penalty", sampling.presence_penalty, -100.0, 100.0)?;
    range("frequency_penalty", sampling.frequency_penalty, -100.0, 100.0)?;
    if let Some(n) = sampling.logprobs.filter(|&n| n > MAX_LOGPROBS) {
        return Err(SubmitError::invalid("logprobs", format!("{n} is more than {MAX_LOGPROBS}")));
    }
    Ok(())
}

/// Checks that lists are not too long, and that their values have a meaning.
fn check_lengths(request: &Request) -> Result<(), SubmitError> {
    let at_most = |field, n: usize, max: usize| {
        let reason = || format!("{n} entries are more than {max}");
        if n <= max { Ok(()) } else { Err(SubmitError::invalid(field, reason())) }
    };
    at_most("logit_bias", request.sampling.logit_bias.len(), MAX_BIASES)?;
    for &(token, bias) in &request.sampling.logit_bias {
        if !(-MAX_BIAS..=MAX_BIAS).contains(&bias) {
            let reason =
                format!("{bias} for token {token} is not between -{MAX_BIAS} and {MAX_BIAS}");
            return Err(SubmitError::invalid("logit_bias", reason));
        }
    }
    at_most("stop_tokens", request.stop_tokens.len(), MAX_STOP_TOKENS)?;
    at_most("stop", request.stop.len(), MAX_STOP_STRINGS)?;
    if request.stop.iter().any(String::is_empty) {
        return Err(SubmitError::invalid("stop", "a stop string is empty"));
    }
    if let Some(long) = request.stop.iter().find(|s| s.len() > MAX_STOP_STRING_BYTES) {
        let reason =
            format!("a stop string of {} bytes is over {MAX_STOP_STRING_BYTES}", long.len());
        return Err(SubmitError::invalid("stop", reason));
    }
    Ok(())
}

/// Checks the fields that depend on the engine and its model.
fn check_against(
    request: &Request,
    limits: &RequestLimits,
    has_text: bool,
) -> Result<(), SubmitError> {
    if request.n == 0 || request.n as usize > limits.max_num_seqs {
        let reason =
            format!("{} is not between 1 and {} (max_num_seqs)", request.n, limits.max_num_seqs);
        return Err(SubmitError::invalid("n", reason));
    }
    for &(token, _) in &request.sampling.logit_bias {
        check_token("logit_bias", token, limits)?;
    }
    for &token in &request.stop_tokens {
        check_token("stop_tokens", token, limits)?;
    }
    if !request.stop.is_empty() && !has_text {
        return Err(SubmitError::invalid(
            "stop",
            "the engine has no tokenizer to find strings with",
        ));
    }
    Ok(())
}

fn check_token(field: &'static str, token: u32, limits: &RequestLimits) -> Result<(), SubmitError> {
    if (token as usize) < limits.vocab_size {
        return Ok(());
    }
    let reason = format!("token {token} is not in the vocabulary of {}", limits.vocab_size);
    Err(SubmitError::invalid(field, reason))
}

fn tokens_of(
    prompt: Prompt,
    limits: &RequestLimits,
    text: Option<&dyn TextCodec>,
) -> Result<Vec<u32>, SubmitError> {
    let encode = |prompt: &str, add_special| {
        let Some(text) = text else {
            return Err(SubmitError::invalid("prompt", "the engine has no tokenizer for a text"));
        };
        text.encode(prompt, add_special).map_err(|e| SubmitError::invalid("prompt", e.to_string()))
    };
    let tokens = match prompt {
        Prompt::Text(prompt) => encode(&prompt, true)?,
        Prompt::Rendered(prompt) => encode(&prompt, false)?,
        Prompt::Tokens(tokens) => tokens,
    };
    if tokens.is_empty() {
        return Err(SubmitError::invalid(
            "prompt",
            "it has no tokens: there is nothing to continue",
        ));
    }
    for &token in &tokens {
        check_token("prompt", token, limits)?;
    }
    Ok(tokens)
}

fn max_tokens_of(
    max_tokens: Option<u32>,
    n_prompt: usize,
    limits: &RequestLimits,
) -> Result<u32, SubmitError> {
    let most = limits.max_tokens_of_sequence();
    let what = if most == limits.max_context {
        format!("the context of {most} tokens")
    } else {
        format!("the KV cache of {} tokens", limits.kv_tokens)
    };
    let Some(room) = most.checked_sub(n_prompt).filter(|&room| room > 0) else {
        let reason = format!(
            "{n_prompt} tokens do not fit in {what}: at most {} do",
            most.saturating_sub(1)
        );
        return Err(SubmitError::invalid("prompt", reason));
    };
    match max_tokens {
        None => Ok(u32::try_from(room).unwrap_or(u32::MAX)),
        Some(0) => Err(SubmitError::invalid("max_tokens", "0 tokens: ask for at least 1")),
        Some(n) if n as usize > room => {
            let reason =
                format!("{n} tokens after a prompt of {n_prompt} do not fit in {what}: {room} do");
            Err(SubmitError::invalid("max_tokens", reason))
        }
        Some(n) => Ok(n),
    }
}

/// An unpredictable number: the standard library keys its hash maps with random numbers of the
/// operating system. It has 53 bits, so that it is exact as a number of JSON in every language.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 11
}
