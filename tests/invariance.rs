//! The same bytes under every schedule: tokens, text and log-probabilities of a request do not
//! depend, bit for bit, on its batch, on the chunks of its prompt, on prefix hits, preemptions, its
//! siblings (n > 1) or the number of threads.

use galley_backend::Formats;
use galley_engine::{EngineConfig, SchedulePolicy};
use galley_tests::runs::{Alteration, Altered, Setup, alone, open, requests, run};
use galley_tests::{TINY_MODELS, on_cpu};
use std::sync::Arc;

#[test]
fn output_does_not_depend_on_the_schedule() {
    let (mut preemptions, mut hits) = (0, 0);
    for (name, _) in TINY_MODELS {
        for formats in [Formats::BF16, Formats::F32] {
            let base = Setup { device: on_cpu(formats, 1), ..alone() };
            let model = open(name, &base);
            let config = &model.0.target().config;
            // All requests twice, so that the second half finds the first in the prefix cache.
            let once = requests(config.vocab_size as u32, config.max_context.min(400));
            let requests = [once.clone(), once].concat();
            let (expected, _) = run(model, &base.config, &requests, false);
            assert!(expected.iter().flatten().all(|seen| !seen.tokens.is_empty()));
            for seed in 0..4 {
                // A pool that hardly holds the longest request, and step budgets from one row a
                // sequence to whole prompts.
                let setup = Setup {
                    device: on_cpu(formats, 1 + seed as usize % 2),
                    n_blocks: if seed < 2 { 28 } else { 200 },
                    config: EngineConfig::default()
                        .max_num_seqs(3 + 5 * seed as usize)
                        .max_num_batched_tokens(32 + 100 * seed as usize)
                        .prefix_caching(seed != 3)
                        .policy(SchedulePolicy::Random { seed }),
                    ..alone()
                };
                let (got, stats) = run(open(name, &setup), &setup.config, &requests, true);
                assert_eq!(expected, got, "{name} in {formats}, schedule {seed}");
                preemptions += stats.preemptions;
                hits += stats.prefix_hit_tokens;
            }
        }
    }
    // The test needs preemptions and prefix hits; without them it would show nothing.
    assert!(preemptions > 100, "{preemptions} preemptions");
    assert!(hits > 1000, "{hits} prefix hits");
}

/// The negative control: a model that attends to the same tokens in another order of summation when
/// a chunk has several rows. The comparison must notice it.
#[test]
fn another_order_of_summation_is_noticed() {
    let base = alone();
    let (model, tokenizer) = open("llama3", &base);
    let config = &model.target().config;
    let requests = requests(config.vocab_size as u32, config.max_context.min(400));
    let (expected, _) = run((model, Arc::clone(&tokenizer)), &base.config, &requests, false);

    let setup = Setup { config: base.config.max_num_batched_tokens(64), ..base };
    let (got, _) = run(open("llama3", &setup), &setup.config, &requests, true);
    assert_eq!(expected, got, "chunks alone change nothing");

    let shuffled = Box::new(Altered(open("llama3", &setup).0, Alteration::OtherOrder));
    let (got, _) = run((shuffled, tokenizer), &setup.config, &requests, true);
    assert_ne!(expected, got);
}
