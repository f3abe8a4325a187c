//! Checks that speculation changes no byte; any test can call it for any drafter.

use crate::plugins::drafting;
use crate::runs::{Setup, alone, open, requests, run, run_drafting};
use galley_engine::{DraftRequest, EngineConfig, Request, SchedulePolicy};
use galley_model::Device;
use galley_model::config::ModelConfig;

/// How much to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every kind of request, twice, under three schedules.
    Full,
    /// Every kind of request, short and once, under one schedule: for an emulated device.
    Small,
}

/// A pool and a random schedule that cause chunks, skipped turns and preemptions.
pub fn chaotic(seed: u64, device: Device) -> Setup {
    Setup {
        device,
        n_blocks: if seed.is_multiple_of(2) { 40 } else { 200 },
        config: EngineConfig::default()
            .max_num_seqs(4 + 4 * seed as usize)
            .max_num_batched_tokens(64 + 60 * seed as usize)
            .prefix_caching(seed != 3)
            .policy(SchedulePolicy::Random { seed }),
        max_logit_rows: 48,
    }
}

/// The requests for `extent`.
pub fn extent_requests(extent: Extent, config: &ModelConfig) -> Vec<Request> {
    let once = requests(config.vocab_size as u32, config.max_context.min(400));
    match extent {
        // All requests twice, so that the second half finds the first in the prefix cache.
        Extent::Full => [once.clone(), once].concat(),
        Extent::Small => {
            let short = |request: Request| request.max_tokens(14);
            once.into_iter().map(short).collect()
        }
    }
}

/// The requests with draft lengths, and KV budgets for some.
pub fn with_drafts(requests: &[Request]) -> Vec<Request> {
    let drafts = [(None, None), (Some(1), Some(48)), (Some(7), None), (Some(4), Some(80))];
    let requests = requests.iter().zip(drafts.into_iter().cycle());
    let requests = requests.map(|(request, (draft_length, kv_budget))| {
        let drafting = DraftRequest::default().draft_length(draft_length).kv_budget(kv_budget);
        request.clone().drafting(drafting)
    });
    requests.collect()
}

/// Runs requests of every kind on a tiny model with some drafters, under chaotic schedules.
/// `device` returns a device with the given number of threads.
pub fn assert_same_bytes<'a>(
    model: &str,
    extent: Extent,
    device: impl Fn(usize) -> Device,
    drafters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    let base = Setup { device: device(1), ..alone() };
    let plain = open(model, &base);
    let requests = extent_requests(extent, &plain.0.target().config);
    let (expected, _) = run(plain, &base.config, &requests, false);
    let requests = with_drafts(&requests);
    // The test needs drafts and preemptions; without them it would show nothing.
    let (seeds, [least_drafted, least_accepted, least_preemptions]) = match extent {
        Extent::Full => (0..3, [200, 1, 6]),
        Extent::Small => (0..1, [20, 0, 0]),
    };
    for (drafter, options) in drafters {
        let (mut drafted, mut accepted, mut preemptions) = (0, 0, 0);
        for seed in seeds.clone() {
            let setup = chaotic(seed, device(1 + seed as usize % 2));
            let (got, stats) = run_drafting(
                open(model, &setup),
                &setup.config,
                &drafting(drafter, options),
                &requests,
                true,
            );
            assert_eq!(expected, got, "{drafter} ({options}) on {model}, schedule {seed}");
            assert_eq!(stats.kv_blocks_used, 0, "{drafter} ({options}) keeps blocks");
            drafted += stats.drafts.drafted;
            accepted += stats.drafts.accepted;
            preemptions += stats.preemptions;
        }
        assert!(drafted > least_drafted, "{drafter} ({options}) on {model}: {drafted} drafted");
        assert!(accepted >= least_accepted, "{drafter} ({options}) on {model}: {drafted} drafted");
        assert!(
            preemptions >= least_preemptions,
            "{drafter} on {model}: {preemptions} preemptions"
        );
    }
}
