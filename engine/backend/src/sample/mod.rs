//! Picking one token from one row of logits: Gumbel-max with counter-based noise.

use std::collections::HashMap;

/// How to pick a token; the same for every position of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches p; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token in the output.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the output.
    pub frequency_penalty: f32,
    /// Added to single logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that must not be picked (such as end of sequence under `ignore_eos`, or `min_tokens`).
    pub banned: Vec<u32>,
    /// Keys the noise.
    pub seed: u64,
    /// How many alternatives to report with their log-probability; None reports none at all.
    pub logprobs: Option<u32>,
}

/// What one row needs beyond its logits.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Row of the logits to pick from; several picks may share one.
    pub logits_row: usize,
    /// The request's settings.
    pub sampling: &'a Sampling,
    /// Absolute position of the token being picked: with the seed, the key of its noise.
    pub position: u32,
    /// Tokens seen so far, for penalties; None when no penalty is set.
    pub seen: Option<&'a Seen>,
}

/// Token counts of one sequence.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Tokens that occur in the prompt.
    pub prompt: std::collections::HashSet<u32>,
    /// Occurrences in the output.
    pub output: HashMap<u32, u32>,
}

/// A picked token.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// The token.
    pub token: u32,
    /// Log-probability of the token under the model's own logits (before penalties, bias and
    /// temperature), if asked for.
    pub logprob: Option<f32>,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Working memory of [`pick`].
#[derive(Default)]
pub struct Scratch {}

/// STUB: helper replaces.
pub fn pick(logits: &[f32], _row: &Row<'_>, _scratch: &mut Scratch) -> Pick {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() { if *x > logits[best] { best = i; } }
    Pick { token: best as u32, logprob: None, top: vec![] }
}
