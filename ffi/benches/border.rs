//! The cost of the border: the same batch through Rust, C and Python, in turns.
//!
//! ```sh
//! cargo bench -p galley-ffi --bench border                      # a tiny model
//! GALLEY_BENCH_MODEL=smollm2-135m-instruct GALLEY_BENCH_PYTHON=env/bin/python cargo bench -p galley-ffi --bench border
//! ```
//!
//! Python needs an environment with the wheel. Its time is that of the whole call, with the prompts.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Installed, Link, model, output};
use galley_api::{ModelTexts, open_engine, parse_requests};
use galley_engine::Event;
use galley_engine::drafters::Search;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const N_REQUESTS: usize = 64;
const N_PAIRS: usize = 7;

/// One run of the batch.
struct Run {
    n_events: f64,
    n_tokens: f64,
    /// Time of the reading thread itself, seconds.
    reader: f64,
    /// From the first token to the last, seconds.
    decode: f64,
}

impl Run {
    /// The line that border.c and border.py print.
    fn of_line(line: &str) -> Run {
        let numbers: Vec<f64> =
            line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let &[n_events, n_tokens, reader, decode] = &numbers[..] else { panic!("{line}") };
        Run { n_events, n_tokens, reader: reader / 1e9, decode: decode / 1e9 }
    }

    fn tokens_per_s(&self) -> f64 {
        self.n_tokens / self.decode
    }
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let first = times.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(first.expect("a number"))
}

fn run_rust(settings: &str, requests: &str) -> Run {
    let search = |_: Option<&std::ffi::OsStr>| Search::default();
    let (engine, files) = open_engine(settings.as_bytes(), |_| {}, search).expect("an engine");
    let texts = ModelTexts::of(&files);
    let bodies = parse_requests(requests.as_bytes()).expect("requests").into_iter();
    let requests = bodies.map(|body| (0, body.into_request(&texts).expect("a request")));
    let queue = engine.event_queue(4096, || {});
    queue.submit_all(requests).expect("accepted");
    let (mut n_events, mut n_tokens, mut first, cpu) = (0, 0, None, thread_time());
    let mut last = Instant::now();
    while let Some(queued) = queue.recv() {
        n_events += 1;
        if let Event::Token(token) = queued.event {
            last = Instant::now();
            first.get_or_insert(last);
            n_tokens += 1;
            std::hint::black_box(token);
        }
    }
    let reader = (thread_time() - cpu).as_secs_f64();
    let decode = (last - first.expect("a token")).as_secs_f64();
    Run { n_events: n_events.into(), n_tokens: n_tokens.into(), reader, decode }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let named = std::env::var("GALLEY_BENCH_MODEL");
    let (path, n_tokens) = match &named {
        Ok(name) => (name.clone(), 64),
        Err(_) => (model("smollm2").display().to_string(), 200),
    };
    let settings = json!({"model": path, "kv_cache_tokens": 32768}).to_string();
    let request = |i: usize| json!({"prompt": format!("{i} sheets of proof"), "max_tokens": n_tokens, "temperature": 0, "ignore_eos": true});
    let requests = Value::from((0..N_REQUESTS).map(request).collect::<Vec<_>>()).to_string();
    let installed = Installed::new();
    let program = installed.compile("benches/border.c", Link::Shared);
    let python = std::env::var("GALLEY_BENCH_PYTHON").ok();
    let script = common::here().join("benches/border.py");
    let (mut rust, mut c, mut py) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..N_PAIRS {
        let mut c_run = || {
            let arguments = [settings.as_str(), &N_REQUESTS.to_string()];
            c.push(Run::of_line(&output(&program, &arguments, &requests)));
        };
        if pair % 2 == 1 {
            c_run();
        }
        rust.push(run_rust(&settings, &requests));
        if pair % 2 == 0 {
            c_run();
        }
        if let Some(python) = &python {
            let arguments = [script.to_str().expect("UTF-8"), &settings];
            py.push(Run::of_line(&output(Path::new(python), &arguments, &requests)));
        }
    }
    println!("batch of {N_REQUESTS}, {N_PAIRS} runs each, medians");
    for (name, runs) in [("Rust", &rust), ("C", &c), ("Python", &py)] {
        if runs.is_empty() {
            continue;
        }
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let ratios: Vec<f64> = runs
            .iter()
            .zip(&rust)
            .map(|(run, rust)| run.tokens_per_s() / rust.tokens_per_s())
            .collect();
        let (low, high) =
            ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), &r| (low.min(r), high.max(r)));
        println!(
            "{name:7} {:9.0} events/s of the reading thread, {:8.1} tokens/s, {:.3} of Rust's ({low:.2} to {high:.2})",
            of(|run| run.n_events / run.reader),
            of(Run::tokens_per_s),
            median(ratios),
        );
    }
}
