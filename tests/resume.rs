//! Answers that were cut go on after any token as if they had not been, on another engine, under every
//! kind of sampling and with every drafter.

use galley_engine::{DraftConfig, Engine, EngineConfig, FinishReason, Request, Usage};
use galley_tests::data;
use galley_tests::plugins::{TARGET_DRAFTERS, drafting};
use galley_tests::runs::{Setup, alone, open, requests};

const MODEL: &str = "smollm2";
/// Tokens of an answer without an end of its own.
const N_TOKENS: u32 = 64;

/// The output of a sequence. Log-probabilities are compared as bits.
#[derive(Clone, Debug, PartialEq)]
struct Output {
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<(u32, Vec<(u32, u32)>)>,
    finish: FinishReason,
    /// Tokens of the prompt, and generated ones.
    n_tokens: (usize, usize),
}

impl Output {
    /// The output after `k` tokens: the whole text, and the rest of all lists.
    fn after(&self, k: usize) -> Output {
        let (tokens, logprobs) = (self.tokens[k..].to_vec(), self.logprobs[k..].to_vec());
        Output { tokens, logprobs, ..self.clone() }
    }
}

/// Runs requests together on a new engine.
fn run(requests: &[Request], drafting: &DraftConfig) -> Vec<Output> {
    let setup = Setup {
        config: EngineConfig::default().max_num_seqs(32).max_num_batched_tokens(256),
        n_blocks: 1024,
        max_logit_rows: 256,
        ..alone()
    };
    let (model, tokenizer) = open(MODEL, &setup);
    let engine = Engine::start_with_drafters(model, Some(tokenizer), setup.config, drafting);
    let engine = engine.expect("an engine");
    let handles = engine.submit_all(requests.iter().cloned()).expect("valid requests");
    let outputs = handles.into_iter().map(|handle| {
        let resumed_text = handle.submitted().resumed_text.clone();
        let answer = handle.collect().expect("an answer").remove(0);
        let bits = |top: Vec<(u32, f32)>| top.into_iter().map(|(t, p)| (t, p.to_bits())).collect();
        let logprobs = answer.logprobs.into_iter().map(|l| (l.logprob.to_bits(), bits(l.top)));
        let Usage { prompt_tokens, generated_tokens, .. } = answer.usage;
        Output {
            text: resumed_text + &answer.text,
            tokens: answer.tokens,
            logprobs: logprobs.collect(),
            finish: answer.finish,
            n_tokens: (prompt_tokens, generated_tokens),
        }
    });
    outputs.collect()
}

/// Requests of every kind for one sequence.
fn kinds() -> Vec<Request> {
    let (model, _) = open(MODEL, &alone());
    let requests = requests(model.target().config.vocab_size as u32, 232);
    requests.into_iter().map(|request| request.n(1).max_tokens(N_TOKENS)).collect()
}

/// Every request after each of its tokens, with the output that it must yield.
fn cuts(requests: &[Request], whole: &[Output]) -> (Vec<Request>, Vec<Output>) {
    let cut = |(request, whole): (&Request, &Output)| {
        let cut = |k: usize| {
            let generated = whole.tokens[..k].iter().copied();
            (request.clone().resume(generated), whole.after(k))
        };
        (0..=whole.tokens.len()).map(cut).collect::<Vec<_>>()
    };
    requests.iter().zip(whole).flat_map(cut).unzip()
}

#[test]
fn every_answer_goes_on_after_every_token_with_every_drafter() {
    let requests = kinds();
    let whole = run(&requests, &DraftConfig::default());
    let n_tokens: usize = whole.iter().map(|output| output.tokens.len()).sum();
    assert!(n_tokens >= 8 * N_TOKENS as usize, "{n_tokens}: most answers have the full length");
    let (cut, expected) = cuts(&requests, &whole);
    let model = data("models").join(MODEL).display().to_string();
    let mut configs = vec![("none".to_owned(), DraftConfig::default())];
    configs.extend(TARGET_DRAFTERS.map(|(name, options)| (name.into(), drafting(name, options))));
    configs.push(("small-model".into(), drafting("small-model", &format!("model={model}"))));
    for (name, config) in configs {
        for (at, (got, expected)) in run(&cut, &config).iter().zip(&expected).enumerate() {
            let n_generated = cut[at].generated.len();
            assert_eq!(got, expected, "with {name}, after {n_generated} tokens of {:?}", cut[at]);
        }
    }
}

/// The negative control: an answer that goes on with another seed, or after another token, is noticed.
#[test]
fn an_answer_that_goes_on_otherwise_is_noticed() {
    let requests = kinds();
    let whole = run(&requests, &DraftConfig::default());
    let (cut, expected) = cuts(&requests, &whole);
    let early: Vec<usize> = (0..cut.len()).filter(|&at| cut[at].generated.len() == 5).collect();
    let n_noticed = |change: fn(Request) -> Request| {
        let changed: Vec<Request> = early.iter().map(|&at| change(cut[at].clone())).collect();
        let got = run(&changed, &DraftConfig::default());
        got.iter().zip(&early).filter(|(got, at)| **got != expected[**at]).count()
    };
    assert_eq!(n_noticed(|request| request), 0);
    let other_seed = n_noticed(|request| request.seed(12345));
    let other_token = n_noticed(|mut request| {
        request.generated[2] = request.generated[2] % 50 + 60;
        request
    });
    println!("{other_seed} and {other_token} of {} noticed", early.len());
    assert!(other_seed >= 3 && other_token >= 6, "{other_seed} {other_token}");
}
