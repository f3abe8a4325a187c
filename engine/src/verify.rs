//! Turns sampled tokens into the run of tokens that a sequence keeps.
//!
//! Only this file can make an [`AcceptedRun`], and only a run can make [`TokenEvent`]s. So the engine
//! emits no token without a run. Without one it commits KV only of tokens that it knew before. Verification is equality: the sampler's noise is keyed by
//! position, so the token sampled after an agreeing prefix is the token that plain decoding would
//! have sampled there, with any drafter. If a request asks for rejection, the sampler has decided
//! already: it returns the draft token or another token, and the run follows in the same way.

use crate::output::TextOutput;
use crate::stop::{FinishReason, StopRules, Stopped};
use galley_backend::InputToken;
use galley_backend::sample::SampledToken;

/// Tokens that one sequence keeps from one step.
#[derive(Debug, Default)]
pub(crate) struct AcceptedRun {
    tokens: Vec<u32>,
    kept: Vec<KeptToken>,
    finish: Option<FinishReason>,
}

/// A kept token, and the text that became final with it.
#[derive(Debug, PartialEq)]
struct KeptToken {
    sampled: SampledToken,
    text: String,
    /// Its place in the draft, if the token was drafted and accepted.
    draft_position: Option<u32>,
}

/// The origin of a token: a draft, or the target alone. With verification by equality the token is the
/// same in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The target sampled the token, and no draft had it.
    Target,
    /// A drafter drafted the token, and verification accepted it.
    Draft {
        /// Index of the drafter in [`Engine::drafters`](crate::Engine::drafters).
        drafter: u32,
        /// Place of the token in its draft, from 0.
        position: u32,
    },
}

/// A new token of a sequence. Only the engine makes these events, from tokens that verification has
/// accepted.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::manual_non_exhaustive,
    reason = "the private field also keeps the rest of this crate from making events"
)]
pub struct TokenEvent {
    /// Index of the sequence among the request's `n`.
    pub index: u32,
    /// The token. The token that ends a sequence is reported, too.
    pub token: u32,
    /// Text that became final with this token. The concatenated texts of a sequence are its
    /// output. Empty without a tokenizer, inside a character, and while the text may be the
    /// start of a stop string.
    pub text: String,
    /// The token's log-probability under the model's own logits, if the request asks for it.
    pub logprob: Option<f32>,
    /// The most likely tokens and their log-probabilities, if the request asks for them.
    pub top: Vec<(u32, f32)>,
    /// The origin of the token.
    pub source: TokenSource,
    /// Private to this file, so that no other code makes an event.
    from_run: (),
}

#[cfg(test)]
impl TokenEvent {
    /// The event of a made-up token, for tests of code that reads events.
    pub(crate) fn of_test(index: u32, token: u32, text: &str, top: Vec<(u32, f32)>) -> Self {
        let (text, logprob) = (text.into(), Some(-0.5));
        let source = TokenSource::Target;
        TokenEvent { index, token, text, logprob, top, source, from_run: () }
    }
}

impl AcceptedRun {
    /// Keeps the longest prefix of `drafted` that equals the target's tokens (`sampled`), and
    /// the target's token after it. Ends where the request ends.
    ///
    /// `sampled[i]` is the token that the target sampled after `drafted[..i]`, so `sampled` has one
    /// token more than `drafted`. `n_generated` tokens were kept before.
    pub(crate) fn verify(
        drafted: &[InputToken],
        sampled: impl IntoIterator<Item = SampledToken>,
        rules: &StopRules,
        n_generated: usize,
        text: &mut TextOutput,
    ) -> Self {
        let mut run = AcceptedRun::default();
        for (i, sampled) in sampled.into_iter().enumerate() {
            debug_assert!(i <= drafted.len(), "a sampled token without a draft token before it");
            let draft_token = drafted.get(i).and_then(|token| token.id());
            let agrees = draft_token == Some(sampled.token);
            run.keep(sampled, agrees.then_some(i as u32), rules, n_generated + i, text);
            if run.finish.is_some() || !agrees {
                break;
            }
        }
        run
    }

    /// Keeps tokens that an earlier answer generated, up to the token that ends the sequence: the run
    /// that plain decoding would have kept. It yields no events.
    pub(crate) fn replay(generated: &[u32], rules: &StopRules, text: &mut TextOutput) -> Self {
        let mut run = AcceptedRun::default();
        for (i, &token) in generated.iter().enumerate() {
            run.keep(SampledToken::of(token), None, rules, i, text);
            if run.finish.is_some() {
                break;
            }
        }
        run
    }

    /// Appends one token and decides whether the sequence ends with it.
    fn keep(
        &mut self,
        sampled: SampledToken,
        draft_position: Option<u32>,
        rules: &StopRules,
        n_before: usize,
        output: &mut TextOutput,
    ) {
        let by_token = rules.ends_with(sampled.token, n_before);
        let (mut text, mut by_text) = (String::new(), None);
        // An end token of the model is markup without text. A stop token may have text.
        let is_silent = match by_token {
            Some(Stopped::Eos(_)) => true,
            Some(_) => !rules.include_stop,
            None => false,
        };
        if !is_silent {
            (text, by_text) = output.push(sampled.token, n_before, rules);
        }
        self.finish = by_token
            .or_else(|| by_text.clone())
            .map(FinishReason::Stop)
            .or_else(|| rules.length_limit(n_before + 1));
        // A stop string has already cut the text. With any other finish, the text held back is flushed.
        if self.finish.is_some() && by_text.is_none() {
            text += &output.finish();
        }
        self.tokens.push(sampled.token);
        self.kept.push(KeptToken { sampled, text, draft_position });
    }

    /// The tokens with KV computed in this step: all but the last, which was sampled and not
    /// drafted, or ends the sequence.
    pub(crate) fn computed(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
    }

    /// Number of `drafted` tokens that are kept.
    pub(crate) fn n_accepted(&self, drafted: &[InputToken]) -> usize {
        let both = self.tokens.iter().zip(drafted);
        both.take_while(|(kept, drafted)| drafted.id() == Some(**kept)).count()
    }

    /// Number of tokens that are kept.
    pub(crate) fn n_kept(&self) -> usize {
        self.tokens.len()
    }

    /// The text that became final with the run.
    pub(crate) fn text(&self) -> String {
        self.kept.iter().map(|kept| kept.text.as_str()).collect()
    }

    /// Why the sequence ends with this run, if it does.
    pub(crate) fn finish(&self) -> Option<&FinishReason> {
        self.finish.as_ref()
    }

    /// The events of the tokens, for sequence `index` of a request. `drafter` is the index of the
    /// drafter of the draft, if there was one.
    pub(crate) fn into_events(
        self,
        index: u32,
        drafter: Option<usize>,
    ) -> impl Iterator<Item = TokenEvent> {
        self.kept.into_iter().map(move |KeptToken { sampled, text, draft_position }| {
            let SampledToken { token, logprob, top, .. } = sampled;
            let source = match (drafter, draft_position) {
                (Some(drafter), Some(position)) => {
                    TokenSource::Draft { drafter: drafter as u32, position }
                }
                _ => TokenSource::Target,
            };
            TokenEvent { index, token, text, logprob, top, source, from_run: () }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::letters::Letters;

    /// Token ids of letters: 0 is "a", 25 is "z".
    fn tokens(text: &str) -> Vec<u32> {
        text.bytes().map(|b| u32::from(b - b'a')).collect()
    }

    struct Case {
        drafted: &'static str,
        sampled: &'static str,
        rules: StopRules,
        n_generated: usize,
    }

    impl Case {
        fn new(drafted: &'static str, sampled: &'static str) -> Self {
            let rules = StopRules::new(vec![], vec![], vec![], vec![], 0, 100, false);
            Case { drafted, sampled, rules, n_generated: 0 }
        }

        fn stopping(
            mut self,
            strings: &[&str],
            tokens: &str,
            eos: &str,
            min: usize,
            max: usize,
            include: bool,
        ) -> Self {
            let strings = strings.iter().map(|s| (*s).to_owned()).collect();
            self.rules = StopRules::new(
                strings,
                self::tokens(tokens),
                self::tokens(eos),
                vec![],
                min,
                max,
                include,
            );
            self
        }

        /// The kept tokens as letters, the text, and the finish reason.
        fn run(self) -> (String, String, Option<FinishReason>) {
            let mut text = TextOutput::new(Some(&Letters), &[]);
            let sampled = tokens(self.sampled).into_iter().map(|token| SampledToken {
                token,
                logprob: None,
                top: Vec::new(),
                proposal: None,
            });
            let drafted: Vec<_> = tokens(self.drafted).into_iter().map(InputToken::known).collect();
            let run =
                AcceptedRun::verify(&drafted, sampled, &self.rules, self.n_generated, &mut text);
            let letters = run.tokens.iter().map(|&t| char::from(b'a' + t as u8)).collect();
            assert_eq!(run.computed().len() + 1, run.kept.len());
            let finish = run.finish().cloned();
            let text = run.into_events(0, None).map(|event| event.text).collect();
            (letters, text, finish)
        }
    }

    fn kept(tokens: &str) -> (String, String, Option<FinishReason>) {
        (tokens.into(), tokens.into(), None)
    }

    #[test]
    fn the_longest_agreeing_prefix_and_one_more_is_kept() {
        assert_eq!(Case::new("", "x").run(), kept("x"));
        assert_eq!(Case::new("abc", "abcd").run(), kept("abcd"));
        assert_eq!(Case::new("abc", "abxd").run(), kept("abx"));
        assert_eq!(Case::new("abc", "xbcd").run(), kept("x"));
    }

    #[test]
    fn a_run_ends_at_a_stop_token() {
        let stop = |reason| Some(FinishReason::Stop(reason));
        let case = || Case::new("abcd", "abcde");
        assert_eq!(
            case().stopping(&[], "c", "", 0, 100, false).run(),
            ("abc".into(), "ab".into(), stop(Stopped::Token(2)))
        );
        assert_eq!(
            case().stopping(&[], "c", "", 0, 100, true).run(),
            ("abc".into(), "abc".into(), stop(Stopped::Token(2)))
        );
        assert_eq!(
            case().stopping(&[], "", "b", 0, 100, true).run(),
            ("ab".into(), "a".into(), stop(Stopped::Eos(1)))
        );
        assert_eq!(case().stopping(&[], "a", "b", 2, 100, false).run(), kept("abcde"));
    }

    #[test]
    fn a_run_ends_at_a_stop_string_and_keeps_the_token_that_completed_it() {
        let stop = Some(FinishReason::Stop(Stopped::Text("cd".into())));
        let case = || Case::new("abcd", "abcde");
        assert_eq!(
            case().stopping(&["cd", "de"], "", "", 0, 100, false).run(),
            ("abcd".into(), "ab".into(), stop.clone())
        );
        assert_eq!(
            case().stopping(&["cd", "de"], "", "", 0, 100, true).run(),
            ("abcd".into(), "abcd".into(), stop)
        );
        // Text before min_tokens is not searched, not even for the start of a string.
        assert_eq!(
            case().stopping(&["cd"], "", "", 3, 100, false).run(),
            ("abcde".into(), "abcde".into(), None)
        );
    }

    #[test]
    fn a_run_ends_at_max_tokens_and_releases_what_was_held_back() {
        let case = Case::new("abcd", "abcde").stopping(&["cx"], "", "", 0, 3, false);
        assert_eq!(case.run(), ("abc".into(), "abc".into(), Some(FinishReason::Length)));
        let mut case = Case::new("abcd", "abcde").stopping(&[], "", "", 0, 10, false);
        case.n_generated = 8;
        assert_eq!(case.run(), ("ab".into(), "ab".into(), Some(FinishReason::Length)));
        // If a stop string and the limit coincide, the stop string is reported.
        let case = Case::new("abcd", "abcde").stopping(&["bc"], "", "", 0, 3, false);
        let stop = Some(FinishReason::Stop(Stopped::Text("bc".into())));
        assert_eq!(case.run(), ("abc".into(), "a".into(), stop));
    }
}
