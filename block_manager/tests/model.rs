//! Random histories, compared with a naive model.
//!
//! Three objects run side by side and are compared after every operation:
//!
//! ```text
//!   BlockManager   the real one
//!   Model          the same rules in their plainest form: lists of tokens, linear scans, no
//!                  counts and no lookup by hash
//!   Device         the content of every slot, copied and written as the manager requires
//! ```
//!
//! The model predicts the number of free blocks, the result of a lookup, the evictions, and the
//! tables that share a block. The device shows whether a table, read through its ids, holds its
//! tokens.

mod harness;

use galley_blocks::{BlockManager, KvKind};
use harness::{Config, Fault, Harness, Op, Random};
use proptest::prelude::*;

/// Runs histories from consecutive seeds until `n_ops` operations are done.
fn run(n_ops: usize, fault: Fault) -> Result<Totals, String> {
    let mut totals = Totals::default();
    for seed in 1.. {
        let random = &mut Random::new(seed);
        let config = Config::random(random);
        let mut harness = Harness::new(config, fault);
        for step in 0..1000 {
            let op = Op::random(random);
            harness
                .apply(op)
                .map_err(|e| format!("seed {seed} {config:?} step {step} {op:?}: {e}"))?;
        }
        let reached =
            harness.finish().map_err(|e| format!("seed {seed} {config:?}, at the end: {e}"))?;
        totals.n_ops += 1000;
        totals.hit_tokens += reached.hit_tokens;
        totals.draft_hit_tokens += reached.draft_hit_tokens;
        totals.draft_evictions += reached.draft_evictions;
        totals.evictions += reached.evictions;
        totals.copies += reached.copies;
        totals.twins += reached.twins;
        totals.collisions += reached.collisions;
        totals.written_in_place += reached.written_in_place;
        totals.out_of_blocks += reached.out_of_blocks;
        if totals.n_ops >= n_ops {
            break;
        }
    }
    Ok(totals)
}

/// Event counts, to check that the histories reach every case.
#[derive(Debug, Default)]
struct Totals {
    n_ops: usize,
    hit_tokens: u64,
    draft_hit_tokens: u64,
    draft_evictions: u64,
    evictions: u64,
    copies: u64,
    twins: u64,
    collisions: u64,
    written_in_place: u64,
    out_of_blocks: u64,
}

#[test]
fn random_histories() {
    let totals = run(300_000, Fault::None).unwrap();
    println!("{totals:?}");
    let Totals { hit_tokens, evictions, copies, twins, .. } = totals;
    assert!(hit_tokens > 10_000 && evictions > 1000 && copies > 1000 && twins > 1000);
    let Totals { draft_hit_tokens, draft_evictions, .. } = totals;
    assert!(draft_hit_tokens > 10_000 && draft_evictions > 1000 && evictions > draft_evictions);
    let Totals { collisions, written_in_place, out_of_blocks, .. } = totals;
    assert!(collisions > 1000 && written_in_place > 50 && out_of_blocks > 1000);
}

/// The harness must notice faults. Each of these is a bug that a device or a caller could have.
#[test]
fn broken_devices_and_callers_are_caught() {
    for fault in [
        Fault::IgnoreCopies,
        Fault::WriteWithoutReserving,
        Fault::WriteOneSlotWrong,
        Fault::LoseATable,
        Fault::ForgetToRollBack,
        Fault::MixUpDraftModels,
        Fault::MixUpDraftAndTarget,
    ] {
        let caught = run(20_000, fault);
        assert!(caught.is_err(), "{fault:?} went unnoticed: {caught:?}");
    }
}

#[test]
fn a_table_of_the_whole_pool_and_back() {
    let mut blocks = BlockManager::new(1 << 16, 16, true);
    let tokens: Vec<u32> = (0..1 << 20).collect();
    for hit in [0, (1 << 20) - 16] {
        let mut table = blocks.match_prefix(KvKind::target(0), &tokens);
        assert_eq!(table.n_tokens(), hit);
        blocks.reserve(&mut table, tokens.len() - hit).unwrap();
        blocks.commit(&mut table, &tokens[hit..]);
        assert_eq!(blocks.n_free(), 0);
        assert!(table.ids().is_sorted(), "a prompt in an empty pool lies in one piece");
        blocks.check(&[&table]).unwrap();
        blocks.release(table);
        blocks.check(&[]).unwrap();
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    // Small numbers mean simple operations, so that a shrunk history is readable.
    (0_u8..100, 0_u8..8, 0_u8..40, 0_u16..72).prop_map(|(kind, table, n, seed)| Op {
        kind,
        table,
        n,
        seed,
    })
}

fn any_config() -> impl Strategy<Value = Config> {
    (1_usize..24, 1_usize..5, prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |(n_blocks, block_size, prefix_caching, weak_hash)| Config {
            n_blocks,
            block_size,
            prefix_caching,
            weak_hash,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_that_shrink(config in any_config(), ops in prop::collection::vec(any_op(), 1..150)) {
        let mut harness = Harness::new(config, Fault::None);
        for op in ops {
            harness.apply(op).map_err(|e| TestCaseError::fail(format!("{op:?}: {e}")))?;
        }
        harness.finish().map_err(TestCaseError::fail)?;
    }
}
