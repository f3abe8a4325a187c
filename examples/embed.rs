//! Galley inside a Rust program: load a model, submit two requests, print their output.
//!
//! ```sh
//! cargo run --release -p galley-examples --bin embed -- MODEL "Once upon a time"
//! ```

use anyhow::{Context, Result, bail};
use galley_backend::cpu::CpuConfig;
use galley_engine::{Engine, EngineConfig, Event, Prompt, Request};
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use galley_model::{LoadOptions, load};
use std::path::PathBuf;
use std::sync::Arc;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().context("usage: embed MODEL [PROMPT]")?);
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());

    // A directory in Hugging Face's layout, or one GGUF file.
    let checkpoint = Checkpoint::open(&path)?;
    let tokenizer = Arc::new(Tokenizer::open(&path, checkpoint.gguf())?);

    // Room for 4096 tokens of keys and values, shared by all sequences.
    let sizes = LoadOptions { block_size: 16, n_blocks: 256, max_rows: 256, max_logit_rows: 8 };
    let model = load(&checkpoint, CpuConfig::default(), sizes, &mut |_, _| {})?;
    let config =
        EngineConfig { max_num_seqs: 8, max_num_batched_tokens: 256, ..Default::default() };
    let engine = Engine::start(model, Some(tokenizer), config)?;

    // Both requests run in one batch. The output of each does not depend on the other.
    let greedy = Request::new(Prompt::Text(prompt.clone())).temperature(0.0).max_tokens(32);
    let sampled =
        Request::new(Prompt::Text(prompt)).temperature(0.8).top_p(0.95).seed(7).max_tokens(32);
    let handles = [engine.submit(greedy)?, engine.submit(sampled)?];
    for (name, handle) in ["greedy", "sampled"].into_iter().zip(handles) {
        print!("{name}: ");
        for event in handle.events() {
            match event {
                Event::Token { text, .. } => print!("{text}"),
                Event::Finished { reason, .. } => println!(" [{}]", reason.as_str()),
                Event::Error(error) => bail!("{error}"),
            }
        }
    }
    Ok(())
}
