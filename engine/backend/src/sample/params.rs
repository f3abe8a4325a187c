//! Sampling settings: the one list that the sampler, requests and the command line share.

/// Sampling settings of a request; the same for all its sequences and positions.
///
/// With feature `clap` they are command-line flags, and the first paragraph of each field is the help of its flag.
/// Temperatures below 1e-4 are greedy as well: f32 could not tell them from 0.
///
/// ```
/// use galley_backend::sample::SamplingParams;
/// let params = SamplingParams::default().temperature(0.8).top_k(40).logprobs(2);
/// assert_eq!((params.top_k, params.top_p, params.logprobs), (40, 1.0, Some(2)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[non_exhaustive]
pub struct SamplingParams {
    /// Sampling temperature; 0 is greedy.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0))]
    pub top_k: u32,
    /// Keep the most likely tokens up to this total probability.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 1.0))]
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub min_p: f32,
    /// Penalty for tokens of the prompt and the output; above 1 discourages them.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 1.0))]
    pub repetition_penalty: f32,
    /// Subtracted from the logit of every token that is in the output.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each of its occurrences in the output.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub frequency_penalty: f32,
    /// A bias that is added to the logit of a token, as TOKEN_ID:BIAS; repeatable.
    #[cfg_attr(feature = "clap", arg(long, value_parser = bias))]
    pub logit_bias: Vec<(u32, f32)>,
    /// Number of alternatives to report with their log-probabilities; None reports no
    /// log-probability at all.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub logprobs: Option<u32>,
}

impl SamplingParams {
    /// Settings that always sample the most likely token.
    pub fn greedy() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }

    /// Whether a row needs [`SampleRow::seen`](super::SampleRow::seen).
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Whether the most likely token is always sampled, so that the seed has no effect.
    pub fn is_greedy(&self) -> bool {
        self.temperature < 1e-4
    }
}

crate::setters! {
    impl SamplingParams;
    /// Sets the sampling temperature; 0 is greedy.
    temperature(temperature: f32) => temperature = temperature;
    /// Keeps the `k` most likely tokens; 0 keeps all.
    top_k(k: u32) => top_k = k;
    /// Keeps the most likely tokens up to a total probability of `p`; 1 keeps all.
    top_p(p: f32) => top_p = p;
    /// Keeps tokens at least `share` as likely as the most likely token; 0 keeps all.
    min_p(share: f32) => min_p = share;
    /// Sets the penalty for tokens of the prompt and the output; 1 is off.
    repetition_penalty(penalty: f32) => repetition_penalty = penalty;
    /// Sets the penalty for tokens that are in the output.
    presence_penalty(penalty: f32) => presence_penalty = penalty;
    /// Sets the penalty for each occurrence of a token in the output.
    frequency_penalty(penalty: f32) => frequency_penalty = penalty;
    /// Sets the pairs of a token and a number that is added to its logit.
    logit_bias(bias: impl IntoIterator<Item = (u32, f32)>) =>
        logit_bias = bias.into_iter().collect();
    /// Asks for log-probabilities, and for this number of alternatives with each token.
    logprobs(n_alternatives: impl Into<Option<u32>>) => logprobs = n_alternatives.into();
}

impl Default for SamplingParams {
    /// The model's own distribution: temperature 1, and no filter, penalty or bias.
    fn default() -> Self {
        SamplingParams { temperature: 1.0, ..SamplingParams::greedy() }
    }
}

/// Reads `TOKEN_ID:BIAS`.
#[cfg(feature = "clap")]
fn bias(text: &str) -> Result<(u32, f32), String> {
    let parsed =
        text.split_once(':').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "TOKEN_ID:BIAS is needed, such as 42:-3.5".to_owned())
}

#[cfg(all(test, feature = "clap"))]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    /// The settings that a command line gives.
    fn parsed(flags: &[&str]) -> Result<SamplingParams, clap::Error> {
        let command = SamplingParams::augment_args(clap::Command::new("test").no_binary_name(true));
        SamplingParams::from_arg_matches(&command.try_get_matches_from(flags)?)
    }

    #[test]
    fn flags_are_greedy_by_default_and_name_their_fields() {
        assert_eq!(parsed(&[]).expect("defaults"), SamplingParams::greedy());
        let flags = ["--top-k", "5", "--logit-bias", "3:-0.5", "--logit-bias", "4:1"];
        let expected = SamplingParams {
            top_k: 5,
            logit_bias: vec![(3, -0.5), (4, 1.0)],
            ..SamplingParams::greedy()
        };
        assert_eq!(parsed(&flags).expect("flags"), expected);
        let error = parsed(&["--logit-bias", "3"]).expect_err("half a bias").to_string();
        assert!(error.contains("TOKEN_ID:BIAS is needed"), "{error}");
    }
}
