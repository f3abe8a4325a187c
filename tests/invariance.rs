//! The same bytes under every schedule: tokens, text and log-probabilities of a request do not
//! depend, bit for bit, on its batch, on the chunks of its prompt, on prefix hits, preemptions, its
//! siblings (n > 1) or the number of threads.

use galley_backend::cpu::InstructionSet;
use galley_backend::{Formats, OperandFormat, WeightFormat};
use galley_engine::{EngineConfig, Request, SchedulePolicy};
use galley_model::Device;
use galley_tests::runs::{Alteration, Altered, Seen, Setup, alone, open, requests, run};
use galley_tests::{QUANTISED, TINY_MODELS, cpu, instruction_sets, on_cpu, weights_in};
use std::ops::{AddAssign, Range};
use std::sync::Arc;

/// Numbers of events without which a comparison shows nothing.
#[derive(Debug, Default)]
struct Events {
    preemptions: u64,
    prefix_hits: u64,
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Self) {
        self.preemptions += other.preemptions;
        self.prefix_hits += other.prefix_hits;
    }
}

/// Requests of every kind for a model.
fn requests_for(model: &str, setup: &Setup) -> Vec<Request> {
    let (model, _) = open(model, setup);
    let config = &model.target().config;
    requests(config.vocab_size as u32, config.max_context.min(400))
}

/// Compares requests that run alone with the same requests under random schedules. `device` returns a
/// device with the given number of threads. Returns the output.
fn assert_any_schedule(
    name: &str,
    device: impl Fn(usize) -> Device,
    once: &[Request],
    schedules: Range<u64>,
) -> (Vec<Vec<Seen>>, Events) {
    let base = Setup { device: device(1), ..alone() };
    // All requests twice, so that the second half finds the first in the prefix cache.
    let requests = [once, once].concat();
    let (expected, _) = run(open(name, &base), &base.config, &requests, false);
    assert!(expected.iter().flatten().all(|seen| !seen.tokens.is_empty()));
    let mut events = Events::default();
    for seed in schedules {
        // A pool that hardly holds the longest request, and step budgets from one row a sequence to
        // whole prompts.
        let setup = Setup {
            device: device(1 + seed as usize % 2),
            n_blocks: if seed < 2 { 28 } else { 200 },
            config: EngineConfig::default()
                .max_num_seqs(3 + 5 * seed as usize)
                .max_num_batched_tokens(32 + 100 * seed as usize)
                .prefix_caching(seed != 3)
                .policy(SchedulePolicy::Random { seed }),
            ..alone()
        };
        let (got, stats) = run(open(name, &setup), &setup.config, &requests, true);
        assert_eq!(expected, got, "{name} on {}, schedule {seed}", open(name, &setup).0.device());
        events += Events { preemptions: stats.preemptions, prefix_hits: stats.prefix_hit_tokens };
    }
    (expected, events)
}

#[test]
fn output_does_not_depend_on_the_schedule() {
    let mut events = Events::default();
    for (name, _) in TINY_MODELS {
        let requests = requests_for(name, &alone());
        for formats in [Formats::BF16, Formats::F32] {
            events += assert_any_schedule(name, |n| on_cpu(formats, n), &requests, 0..4).1;
        }
    }
    assert!(events.preemptions > 100 && events.prefix_hits > 1000, "{events:?}");
}

#[test]
fn output_of_quantised_weights_does_not_depend_on_the_schedule() {
    let (name, _) = QUANTISED;
    let requests: Vec<_> =
        requests_for(name, &alone()).into_iter().map(|request| request.max_tokens(10)).collect();
    let (mut events, mut outputs) = (Events::default(), Vec::new());
    for isa in instruction_sets() {
        let device = |n| cpu(Some(isa), Formats::NATIVE, n).into();
        // The portable kernels are slow.
        let schedules = if isa == InstructionSet::Portable { 1..2 } else { 0..2 };
        let (output, more) = assert_any_schedule(name, device, &requests, schedules);
        outputs.push((isa, output));
        events += more;
    }
    for weights in [WeightFormat::Native, WeightFormat::Q8, WeightFormat::Q4] {
        let formats = weights_in(weights, OperandFormat::F32);
        events += assert_any_schedule(name, |n| on_cpu(formats, n), &requests, 1..2).1;
    }
    assert!(events.preemptions > 100 && events.prefix_hits > 1000, "{events:?}");
    // Instruction sets with the same kernels of floats give the same bits.
    for (isa, output) in &outputs {
        let (same, expected) =
            outputs.iter().find(|(other, _)| *other == isa.of_same_bits()).expect("it ran");
        assert_eq!(output, expected, "{} and {}", isa.name(), same.name());
    }
}

/// The negative control: a model that attends to the same tokens in another order of summation when
/// a chunk has several rows. The comparison must notice it.
#[test]
fn another_order_of_summation_is_noticed() {
    for (name, formats) in [("llama3", Formats::BF16), (QUANTISED.0, Formats::NATIVE)] {
        let base = Setup { device: on_cpu(formats, 1), ..alone() };
        let requests = requests_for(name, &base);
        let (model, tokenizer) = open(name, &base);
        let (expected, _) = run((model, Arc::clone(&tokenizer)), &base.config, &requests, false);

        let setup = Setup { config: base.config.max_num_batched_tokens(64), ..base };
        let (got, _) = run(open(name, &setup), &setup.config, &requests, true);
        assert_eq!(expected, got, "chunks alone change nothing");

        let shuffled = Box::new(Altered(open(name, &setup).0, Alteration::OtherOrder));
        let (got, _) = run((shuffled, tokenizer), &setup.config, &requests, true);
        assert_ne!(expected, got);
    }
}
