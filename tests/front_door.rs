//! The front door: an engine that is opened by the path of a model gives the bytes of one that is put together by hand.

use galley_engine::{Answer, Engine, EngineBuilder, Request};
use galley_tests::data;
use galley_tests::plugins::setup;
use galley_tests::runs::{Seen, alone, open, requests, run};

/// An answer as the runs of other tests show it.
fn seen(answer: &Answer) -> Seen {
    let logprobs = answer.logprobs.iter().flat_map(|of| {
        let top = of.top.iter().map(|(_, logprob)| logprob.to_bits());
        std::iter::once(of.logprob.to_bits()).chain(top)
    });
    Seen {
        tokens: answer.tokens.clone(),
        text: answer.text.clone(),
        logprobs: logprobs.collect(),
        finish: answer.finish.as_str(),
    }
}

fn builder() -> EngineBuilder {
    let path = data("models").join("llama3");
    let builder = Engine::open(path.to_str().expect("UTF-8")).expect("a tiny model");
    builder.threads(1).kv_cache_tokens(4096)
}

/// The output of all sequences of all requests, which run together.
fn run_opened(engine: &Engine, requests: &[Request]) -> Vec<Vec<Seen>> {
    let handles = engine.submit_all(requests.to_vec()).expect("valid requests");
    let answers = handles.into_iter().map(|handle| handle.collect().expect("no step fails"));
    answers.map(|answers| answers.iter().map(seen).collect()).collect()
}

#[test]
fn an_opened_engine_gives_the_bytes_of_one_that_is_put_together_by_hand() {
    let (model, tokenizer) = open("llama3", &alone());
    let config = &model.target().config;
    let requests = requests(config.vocab_size as u32, config.max_context.min(400));
    let (expected, _) = run((model, tokenizer), &alone().config, &requests, false);

    // Without a drafter that is named, the engine chooses among those that lie beside the test.
    let chosen = builder().build().expect("an engine");
    assert_eq!(run_opened(&chosen, &requests), expected);
    let plain = builder().drafter("none").build().expect("an engine");
    assert_eq!(run_opened(&plain, &requests), expected);
    assert_eq!(plain.stats().drafts.drafted, 0);
    // The control: another seed gives another output.
    assert_ne!(run_opened(&plain, &[requests[2].clone().seed(99)])[0], expected[2]);

    let drafter = setup("streaming-llm", "budget=64");
    let drafting = builder().configure(|settings| settings.drafting.drafters.push(drafter));
    let drafting = drafting.draft_length(4).build().expect("an engine");
    assert_eq!(run_opened(&drafting, &requests), expected);
    assert!(drafting.stats().drafts.drafted > 0);
}

#[test]
fn pieces_and_the_whole_answer_are_the_same() {
    let engine = builder().build().expect("an engine");
    let request = Request::new("a prompt").temperature(0.7).seed(5).max_tokens(20);
    let answer = engine.generate(request.clone()).expect("an answer");
    let (mut text, mut tokens, mut finish) = (String::new(), Vec::new(), None);
    for piece in engine.submit(request).expect("a valid request") {
        let piece = piece.expect("no step fails");
        assert!(finish.is_none(), "the end is the last piece");
        text.push_str(&piece.text);
        tokens.extend(piece.token);
        finish = piece.finish;
    }
    let finish = finish.expect("the sequence ended");
    assert_eq!((text, tokens), (answer.text, answer.tokens));
    assert_eq!(finish.reason, answer.finish);
    assert_eq!(finish.usage.generated_tokens, answer.usage.generated_tokens);
}
