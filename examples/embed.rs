//! Galley inside a Rust program: opens a model, and prints the output of two requests.
//!
//! ```sh
//! cargo run --release -p galley-examples --bin embed -- MODEL "Once upon a time"
//! ```

use anyhow::{Context, Result};
use galley_engine::{Engine, Request};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let model = args.next().context("usage: embed MODEL [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());
    let engine = Engine::open(&model)?.kv_cache_tokens(4096).build()?;
    let request = Request::new(prompt).max_tokens(32);
    let greedy = engine.submit(request.clone().temperature(0.0))?;
    // Both run in one batch. The output of one does not depend on the other.
    let sampled = engine.submit(request.temperature(0.8).top_p(0.95).seed(7))?;
    for (name, handle) in [("greedy", greedy), ("sampled", sampled)] {
        for answer in handle.collect()? {
            println!("{name}: {} [{}]", answer.text, answer.finish.as_str());
        }
    }
    Ok(())
}
