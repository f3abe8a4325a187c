//! Reference runs of requests: one at a time, without drafts, without a prefix cache, and with
//! enough memory.

use super::dimensions::{End, Job, MAX_N, plain};
use super::drive::follow;
use super::stream::Stream;
use super::target::{Arithmetic, Target};
use galley_engine::{Engine, EngineConfig, Request, SchedulePolicy};
use galley_model::LoadOptions;
use std::collections::HashMap;
use std::sync::Arc;

/// Engines that run one request at a time. They are kept until there are [`MOST_ENGINES`].
#[derive(Default)]
pub struct Alone {
    /// Indexed by model and arithmetic.
    engines: HashMap<String, Engine>,
}

/// More tokens than any request has, prompt and output together.
const MOST_TOKENS: usize = 512;
const BLOCK_SIZE: usize = 16;
/// A tiny model's engine takes about ten megabytes, and models, instruction sets and formats have some
/// four hundred combinations.
const MOST_ENGINES: usize = 64;

impl Alone {
    /// The reference engine of a model.
    pub fn engine(&mut self, target: &Target, arithmetic: Arithmetic) -> &Engine {
        let key = format!("{} {arithmetic:?}", target.name);
        if self.engines.len() == MOST_ENGINES && !self.engines.contains_key(&key) {
            self.engines.clear();
        }
        self.engines.entry(key).or_insert_with(|| {
            let load = LoadOptions::new(BLOCK_SIZE, MAX_N * (MOST_TOKENS / BLOCK_SIZE))
                .max_rows(MOST_TOKENS)
                .max_logit_rows(MOST_TOKENS);
            let config = EngineConfig::default()
                .max_num_seqs(MAX_N)
                .max_num_batched_tokens(MOST_TOKENS)
                .prefix_caching(false)
                .policy(SchedulePolicy::Fixed);
            let model = target.load(arithmetic, 1, load);
            let tokenizer = Some(Arc::clone(&target.tokenizer));
            Engine::start(model, tokenizer, config).expect("an engine")
        })
    }
}

/// The output of a request that runs alone, if a sequence has at most `most` tokens.
pub fn run(engine: &Engine, request: &Request, most: usize, n_prompt: usize) -> Vec<Stream> {
    let max_tokens = request.max_tokens.unwrap_or((most - n_prompt) as u32);
    let request = plain(request).max_tokens(max_tokens);
    let job = Job { request: request.clone(), after_events: 0, end: End::Own };
    let outcome = follow(engine, &[job]).pop().expect("one request, one outcome");
    assert!(outcome.trouble.is_none(), "alone: {:?}: {request:?}", outcome.trouble);
    outcome.streams
}
