//! Setters of a [`Request`], each of which takes the request and returns it.

use super::{Prompt, Request};
use crate::draft_settings::DraftRequest;
use galley_backend::sample::SamplingParams;
use galley_backend::setters;

setters! {
    impl Request;
    /// Replaces the prompt, and leaves [`Request::chat`] unchanged.
    prompt(prompt: impl Into<Prompt>) => prompt = prompt.into();
    /// Sets [`Request::chat`].
    chat(is_chat: bool) => chat = is_chat;
    /// Replaces all sampling settings.
    sampling(params: SamplingParams) => sampling = params;
    /// Sets the sampling temperature; 0 is greedy.
    temperature(temperature: f32) => sampling.temperature = temperature;
    /// Keeps the `k` most likely tokens; 0 keeps all.
    top_k(k: u32) => sampling.top_k = k;
    /// Keeps the most likely tokens up to a total probability of `p`; 1 keeps all.
    top_p(p: f32) => sampling.top_p = p;
    /// Keeps tokens at least `share` as likely as the most likely token; 0 keeps all.
    min_p(share: f32) => sampling.min_p = share;
    /// Sets the penalty for tokens of the prompt and the output; 1 is off.
    repetition_penalty(penalty: f32) => sampling.repetition_penalty = penalty;
    /// Sets the penalty for tokens that are in the output.
    presence_penalty(penalty: f32) => sampling.presence_penalty = penalty;
    /// Sets the penalty for each occurrence of a token in the output.
    frequency_penalty(penalty: f32) => sampling.frequency_penalty = penalty;
    /// Sets the pairs of a token and a number that is added to its logit.
    logit_bias(bias: impl IntoIterator<Item = (u32, f32)>) =>
        sampling.logit_bias = bias.into_iter().collect();
    /// Asks for log-probabilities, and for `n_alternatives` with each token.
    logprobs(n_alternatives: u32) => sampling.logprobs = Some(n_alternatives);
    /// Sets the seed, which makes sampling reproducible.
    seed(seed: u64) => seed = Some(seed);
    /// Sets the number of sequences to generate from the prompt.
    n(n: u32) => n = n;
    /// Sets the most tokens to generate.
    max_tokens(n_tokens: u32) => max_tokens = Some(n_tokens);
    /// Sets the number of output tokens before which no stop condition ends a sequence.
    min_tokens(n_tokens: u32) => min_tokens = n_tokens;
    /// Sets the strings that end a sequence.
    stop(strings: impl IntoIterator<Item = impl Into<String>>) =>
        stop = strings.into_iter().map(Into::into).collect();
    /// Sets the tokens that end a sequence, beside the model's own.
    stop_tokens(tokens: impl IntoIterator<Item = u32>) =>
        stop_tokens = tokens.into_iter().collect();
    /// Sets whether the output includes the text of the stop token or stop string.
    include_stop(is_included: bool) => include_stop = is_included;
    /// Sets whether sampling excludes the model's end tokens.
    ignore_eos(is_ignored: bool) => ignore_eos = is_ignored;
    /// Continues an answer after the tokens that it has: see [`Request::generated`].
    resume(generated: impl IntoIterator<Item = u32>) => generated = generated.into_iter().collect();
    /// Sets the fingerprint that the engine must have: see [`Request::fingerprint`].
    fingerprint(fingerprint: impl Into<String>) => fingerprint = Some(fingerprint.into());
    /// Sets the priority; lower runs first.
    priority(priority: i32) => priority = priority;
    /// Sets the salt: sequences share KV and earlier outputs only with sequences of the same salt.
    cache_salt(salt: u64) => cache_salt = salt;
    /// Sets the drafter and its number of draft tokens.
    drafting(drafting: DraftRequest) => drafting = drafting;
}
