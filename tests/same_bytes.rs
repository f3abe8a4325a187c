//! The promise that speculation changes no byte, as a check that any test can make of any drafter.

use crate::plugins::drafting;
use crate::runs::{Setup, alone, open, requests, run, run_drafting};
use galley_backend::Dtype;
use galley_engine::{DraftRequest, EngineConfig, Request, SchedulePolicy};

/// A pool and a schedule that leave nothing as it comes: chunks, missed turns, preemptions.
fn chaotic(seed: u64, dtype: Dtype) -> Setup {
    Setup {
        n_threads: 1 + seed as usize % 2,
        n_blocks: if seed.is_multiple_of(2) { 40 } else { 200 },
        config: EngineConfig {
            max_num_seqs: 4 + 4 * seed as usize,
            max_num_batched_tokens: 64 + 60 * seed as usize,
            prefix_caching: seed != 3,
            policy: SchedulePolicy::Random { seed },
        },
        dtype,
        max_logit_rows: 48,
    }
}

/// Draft lengths, and budgets for some.
pub fn with_drafts(requests: &[Request]) -> Vec<Request> {
    let drafts = [(None, None), (Some(1), Some(48)), (Some(7), None), (Some(4), Some(80))];
    let requests = requests.iter().zip(drafts.into_iter().cycle());
    let requests = requests.map(|(request, (draft_length, kv_budget))| {
        let drafting = DraftRequest { draft_length, kv_budget, ..DraftRequest::default() };
        Request { drafting, ..request.clone() }
    });
    requests.collect()
}

/// Runs requests of every kind on a tiny model with some drafters, under schedules that leave nothing as it comes.
pub fn assert_same_bytes<'a>(
    model: &str,
    dtype: Dtype,
    drafters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    let base = Setup { dtype, ..alone() };
    let plain = open(model, &base);
    let config = plain.0.config();
    let once = requests(config.vocab_size as u32, config.max_context.min(400));
    // Twice, so that the second half finds the first in the prefix cache.
    let requests = [once.clone(), once].concat();
    let (expected, _) = run(plain, &base.config, &requests, false);
    let requests = with_drafts(&requests);
    for (drafter, options) in drafters {
        let (mut drafted, mut accepted, mut preemptions) = (0, 0, 0);
        for seed in 0..3 {
            let setup = chaotic(seed, dtype);
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
        // The test is about these; without them it would show nothing.
        assert!(drafted > 200, "{drafter} ({options}) on {model}: {drafted} drafted");
        assert!(accepted > 0, "{drafter} ({options}) on {model}: {drafted} drafted");
        assert!(preemptions > 5, "{drafter} on {model}: {preemptions} preemptions");
    }
}
