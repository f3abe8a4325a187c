//! Requests that go on after output that exists already.

use super::drafter::{Kind, Known, drafting};
use super::letters::letters;
use super::schedules::{Bench, Random, plain, random_request};
use super::toy::Toy;
use crate::config::EngineConfig;
use crate::draft_settings::{DraftRequest, Verify};
use crate::drafting::Drafting;
use crate::event::{Event, Usage};
use crate::request::{Prompt, Request};
use crate::stop::FinishReason;
use crate::verify::TokenEvent;

/// A token, its text, and its log-probabilities as bits.
type Token = (u32, String, Option<u32>, Vec<(u32, u32)>);

/// The output of a sequence, token by token.
#[derive(Debug, Default, PartialEq)]
struct Output {
    tokens: Vec<Token>,
    finish: Option<FinishReason>,
    usage: Usage,
}

fn output(events: impl Iterator<Item = Event>) -> Output {
    let mut output = Output::default();
    for event in events {
        match event {
            Event::Token(TokenEvent { token, text, logprob, top, .. }) => {
                let top = top.into_iter().map(|(token, p)| (token, p.to_bits())).collect();
                output.tokens.push((token, text, logprob.map(f32::to_bits), top));
            }
            Event::Finished { reason, usage, .. } => {
                output.finish = Some(reason);
                output.usage = usage;
            }
            other => panic!("{other:?}"),
        }
    }
    output
}

/// Runs a request alone on a new engine.
fn run(request: &Request, kind: Option<Kind>, is_asynchronous: bool) -> Output {
    let toy = Toy::new(40, 4, 16).asynchronous(is_asynchronous);
    let mut bench = Bench::drafting(Box::new(toy), &EngineConfig::default(), |sizes| {
        kind.map_or_else(Drafting::default, |kind| drafting(kind, &Known::default(), sizes))
    });
    bench.submit(request.clone());
    bench.run_to_the_end();
    output(bench.requests[0].1.try_iter())
}

/// The request after its first `k` tokens.
fn cut(request: &Request, whole: &Output, k: usize) -> Request {
    request.clone().resume(whole.tokens[..k].iter().map(|(token, ..)| *token))
}

/// The first difference between `whole` and its continuation after each `k` tokens, as `resume`
/// makes it.
fn difference(
    request: &Request,
    whole: &Output,
    run: impl Fn(&Request) -> Output,
    resume: impl Fn(&Request, &Output, usize) -> Request,
) -> Option<String> {
    for k in 0..=whole.tokens.len() {
        let rest = run(&resume(request, whole, k));
        let counts = |usage: &Usage| (usage.prompt_tokens, usage.generated_tokens);
        let is_same = rest.tokens == whole.tokens[k..]
            && rest.finish == whole.finish
            && counts(&rest.usage) == counts(&whole.usage);
        if !is_same {
            return Some(format!("after {k}: {rest:?} is not the end of {whole:?}"));
        }
    }
    None
}

/// A random request for one sequence of up to 40 tokens, with log-probabilities.
fn random(seed: u32) -> Request {
    let mut random = Random::new(seed);
    let prefix = random.tokens(30);
    random_request(&mut random, 100, &[prefix]).n(1).logprobs(2)
}

#[test]
fn an_answer_goes_on_after_every_token_as_if_it_had_not_been_cut() {
    let kinds = [None, Some(Kind::Right), Some(Kind::Wrong), Some(Kind::Mixed)];
    let mut n_tokens = 0;
    for seed in 0..120 {
        let request = random(seed);
        let kind = kinds[seed as usize % kinds.len()];
        let whole = run(&request, None, false);
        n_tokens += whole.tokens.len();
        let wrong = difference(&request, &whole, |request| run(request, kind, false), cut);
        assert_eq!(wrong, None, "seed {seed}, {kind:?}");
    }
    assert!(n_tokens > 1000, "{n_tokens}");
}

#[test]
fn an_answer_goes_on_beside_steps_that_run_ahead() {
    for seed in 0..40 {
        let request = plain(random(seed));
        let whole = run(&request, None, false);
        let wrong = difference(&request, &whole, |request| run(request, None, true), cut);
        assert_eq!(wrong, None, "seed {seed}");
    }
}

/// The negative control: output that is sent as a prompt is another request, and the check notices.
#[test]
fn output_that_is_sent_as_a_prompt_is_noticed() {
    let as_prompt = |request: &Request, whole: &Output, k: usize| {
        let Prompt::Tokens(mut prompt) = request.prompt.clone() else { panic!("tokens") };
        prompt.extend(whole.tokens[..k].iter().map(|(token, ..)| *token));
        let n_left = request.max_tokens.unwrap().saturating_sub(k as u32).max(1);
        let min_tokens = request.min_tokens.min(n_left);
        Request { prompt: Prompt::Tokens(prompt), min_tokens, ..request.clone() }.max_tokens(n_left)
    };
    let is_noticed = |&seed: &u32| {
        let request = random(seed);
        let whole = run(&request, None, false);
        difference(&request, &whole, |request| run(request, None, false), as_prompt).is_some()
    };
    assert_eq!((0..20).filter(is_noticed).count(), 20, "the token counts differ at least");
}

#[test]
fn output_that_has_ended_ends_at_once_and_without_a_step() {
    let mut bench = Bench::new(Toy::new(40, 4, 64), &EngineConfig::default());
    let request =
        Request::new(Prompt::Tokens(vec![1, 2, 3])).max_tokens(4).seed(1).ignore_eos(true);
    bench.submit(request.clone().resume([4, 5, 6, 7]));
    bench.submit(request.clone().stop_tokens([6]).resume([4, 5, 6]));
    bench.submit(request.stop([letters(5)]).resume([4, 5]));
    let ends = bench.requests.iter().map(|(_, events, _)| output(events.try_iter()));
    let ends: Vec<_> = ends.map(|end| (end.tokens.len(), end.usage.generated_tokens)).collect();
    assert_eq!(ends, [(0, 4), (0, 3), (0, 2)]);
    assert!(bench.core.is_empty());
    let stats = bench.core.stats();
    assert_eq!((stats.steps, stats.requests, stats.finished, stats.kv_blocks_used), (0, 3, 3, 0));
}

/// The prefix cache finds prompt and output of the first part.
#[test]
fn the_kv_of_the_first_part_is_found() {
    let mut bench = Bench::new(Toy::new(40, 4, 64), &EngineConfig::default());
    let request = Request::new(Prompt::Tokens(vec![3; 10])).max_tokens(20).seed(1).ignore_eos(true);
    bench.submit(request.clone());
    bench.run_to_the_end();
    let whole = output(bench.requests[0].1.try_iter());
    bench.submit(cut(&request, &whole, 15));
    bench.run_to_the_end();
    let rest = output(bench.requests[1].1.try_iter());
    assert_eq!(rest.tokens, whole.tokens[15..]);
    assert_eq!((rest.usage.prompt_tokens, rest.usage.cached_tokens), (10, 24));
}

#[test]
fn output_that_cannot_go_on_is_refused() {
    let bench = Bench::new(Toy::new(40, 4, 64), &EngineConfig::default());
    let refused = |request: Request| bench.refusal(request);
    let request = || Request::new(Prompt::Tokens(vec![1, 2])).max_tokens(9).seed(1).resume([4, 5]);
    assert!(refused(request().n(2)).contains("n = 1"));
    let by_rejection = DraftRequest::default().verify(Verify::Rejection);
    assert!(refused(request().drafting(by_rejection)).contains("rejection"));
    assert!(refused(request().resume([4, 1 << 20])).contains("vocabulary"));
    assert!(refused(request().stop_tokens([4])).contains("token 1 of 2: 1 follow its end"));
    assert!(refused(request().max_tokens(1)).contains("2 tokens exist already"));
    let without_seed = Request { seed: None, ..request() };
    assert!(refused(without_seed).starts_with("seed: "));
    let other = refused(request().fingerprint("another engine"));
    assert!(other.starts_with("fingerprint: ") && other.contains("another engine"), "{other}");
}
