//! Tests of single operations. `tests/model.rs` runs them in random order.

use super::*;

/// Blocks of 4 tokens.
fn manager(n_blocks: usize) -> BlockManager {
    BlockManager::new(n_blocks, 4, true)
}

/// Reserves and commits, and returns the copies that the device must perform.
fn append(blocks: &mut BlockManager, table: &mut BlockTable, tokens: &[u32]) -> Vec<BlockCopy> {
    let copies = blocks.reserve(table, tokens.len()).unwrap();
    blocks.commit(table, tokens);
    copies
}

fn filled(blocks: &mut BlockManager, tokens: &[u32]) -> BlockTable {
    let mut table = BlockTable::default();
    append(blocks, &mut table, tokens);
    table
}

/// Tokens of a prompt that the prefix cache has.
fn n_cached(blocks: &mut BlockManager, salt: u64, prompt: &[u32]) -> usize {
    let table = blocks.match_prefix(KvKind::target(salt), prompt);
    let n_tokens = table.n_tokens();
    blocks.release(table);
    n_tokens
}

fn tokens<const N: usize>() -> [u32; N] {
    std::array::from_fn(|at| u32::try_from(at).unwrap())
}

#[test]
fn a_prompt_is_found_again() {
    let mut blocks = manager(8);
    let table = filled(&mut blocks, &tokens::<11>());
    assert_eq!(table.ids(), [0, 1, 2]);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<20>()), 8);
    blocks.release(table);
    assert_eq!((blocks.n_free(), blocks.n_used()), (8, 0));

    let table = blocks.match_prefix(KvKind::default(), &tokens::<9>());
    assert_eq!((table.ids(), table.n_tokens()), (&[0, 1][..], 8));
    assert_eq!(blocks.n_free(), 6);
    let other = blocks.match_prefix(KvKind::target(1), &tokens::<9>());
    assert_eq!(other.n_tokens(), 0);
    blocks.check(&[&table, &other]).unwrap();
}

#[test]
fn the_last_token_is_never_found() {
    let mut blocks = manager(8);
    let table = filled(&mut blocks, &tokens::<8>());
    blocks.release(table);
    for (n_tokens, hit) in [(0, 0), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8)] {
        let prompt = &tokens::<9>()[..n_tokens];
        assert_eq!(n_cached(&mut blocks, 0, prompt), hit, "{n_tokens} tokens");
    }
}

#[test]
fn nothing_is_found_without_prefix_caching() {
    let mut blocks = BlockManager::new(8, 4, false);
    let table = filled(&mut blocks, &tokens::<11>());
    blocks.release(table);
    assert_eq!(blocks.match_prefix(KvKind::default(), &tokens::<11>()).n_tokens(), 0);
    blocks.check(&[]).unwrap();
}

#[test]
fn reserve_is_all_or_nothing() {
    let mut blocks = manager(3);
    let mut table = filled(&mut blocks, &tokens::<5>());
    assert_eq!(blocks.blocks_needed(&table, 7), 1);
    let error = blocks.reserve(&mut table, 8).unwrap_err();
    assert_eq!(error, OutOfBlocks { needed: 2, free: 1 });
    assert_eq!(error.to_string(), "out of KV blocks: 2 needed, 1 free");
    assert!(blocks.reserve(&mut table, usize::MAX).is_err());
    assert_eq!((table.ids(), blocks.n_free()), (&[0, 1][..], 1));
    blocks.check(&[&table]).unwrap();
    assert_eq!(blocks.reserve(&mut table, 7), Ok(vec![]));
    assert_eq!(table.ids().len(), 3);
}

#[test]
fn rollback_gives_back_what_was_not_kept() {
    let mut blocks = manager(8);
    let mut table = filled(&mut blocks, &tokens::<3>());
    blocks.reserve(&mut table, 10).unwrap();
    blocks.commit(&mut table, &[7, 7]);
    blocks.check(&[&table]).unwrap();
    assert_eq!(table.ids().len(), 4);
    blocks.rollback(&mut table);
    assert_eq!((table.ids().len(), table.n_tokens()), (2, 5));
    blocks.check(&[&table]).unwrap();
}

#[test]
fn forks_share_until_one_writes() {
    let mut blocks = manager(8);
    let mut first = filled(&mut blocks, &tokens::<6>());
    let mut second = blocks.fork(&first);
    assert_eq!((first.ids(), second.ids()), (&[0, 1][..], &[0, 1][..]));
    assert_eq!(blocks.n_used(), 2);

    assert_eq!(blocks.blocks_needed(&first, 3), 2, "a copy and a new block");
    assert_eq!(append(&mut blocks, &mut first, &[9]), [BlockCopy { from: 1, to: 2 }]);
    assert_eq!(append(&mut blocks, &mut second, &[8]), [], "alone now");
    assert_eq!((first.ids(), second.ids()), (&[0, 2][..], &[0, 1][..]));
    blocks.check(&[&first, &second]).unwrap();
}

#[test]
fn forks_at_a_block_boundary_need_no_copy() {
    let mut blocks = manager(8);
    let mut first = filled(&mut blocks, &tokens::<8>());
    let mut second = blocks.fork(&first);
    assert_eq!(append(&mut blocks, &mut first, &[1]), []);
    assert_eq!(append(&mut blocks, &mut second, &[2]), []);
    blocks.check(&[&first, &second]).unwrap();
}

#[test]
#[should_panic(expected = "while slots of it are reserved")]
fn a_table_in_the_middle_of_a_step_is_not_forked() {
    let mut blocks = manager(8);
    let mut table = filled(&mut blocks, &tokens::<6>());
    blocks.reserve(&mut table, 1).unwrap();
    drop(blocks.fork(&table));
}

#[test]
fn twins_become_one() {
    let mut blocks = manager(8);
    let mut first = BlockTable::default();
    let mut second = BlockTable::default();
    blocks.reserve(&mut first, 9).unwrap();
    blocks.reserve(&mut second, 9).unwrap();
    assert_eq!((blocks.n_used(), second.ids()), (6, &[3, 4, 5][..]));
    blocks.commit(&mut first, &tokens::<9>());
    blocks.commit(&mut second, &tokens::<9>());
    assert_eq!((blocks.n_used(), second.ids()), (4, &[0, 1, 5][..]));
    blocks.check(&[&first, &second]).unwrap();
    blocks.release(first);
    blocks.release(second);
    assert_eq!(blocks.n_free(), 8);
}

#[test]
fn eviction_takes_leaves_of_the_least_recently_used() {
    let mut blocks = manager(4);
    let first = filled(&mut blocks, &tokens::<8>());
    let second = filled(&mut blocks, &[50, 51, 52, 53, 54, 55, 56, 57]);
    blocks.release(first);
    blocks.release(second);
    let hit = blocks.match_prefix(KvKind::default(), &tokens::<5>()); // the root of the first is used again
    assert_eq!(hit.ids(), [0]);

    let mut third = BlockTable::new(KvKind::target(3));
    append(&mut blocks, &mut third, &tokens::<8>());
    assert_eq!(third.ids(), [1, 3], "the leaves, in the order in which they became idle");
    assert_eq!(n_cached(&mut blocks, 0, &[50, 51, 52, 53, 54]), 4);
    blocks.check(&[&hit, &third]).unwrap();
}

/// The only holder of a cached leaf, truncated into it, writes in place: that works even in a full
/// pool. The old content is not served again.
#[test]
fn a_cached_block_is_forgotten_before_its_holder_writes_to_it() {
    let mut blocks = manager(2);
    let mut table = filled(&mut blocks, &tokens::<8>());
    blocks.truncate(&mut table, 6);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<9>()), 8, "nothing is written yet");
    assert_eq!(append(&mut blocks, &mut table, &[90, 91]), []);
    assert_eq!(table.ids(), [0, 1]);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<9>()), 4);
    assert_eq!(n_cached(&mut blocks, 0, &[0, 1, 2, 3, 4, 5, 90, 91, 0]), 8);
    blocks.check(&[&table]).unwrap();
}

#[test]
fn a_cached_block_with_children_is_copied() {
    let mut blocks = manager(8);
    let mut table = filled(&mut blocks, &tokens::<12>());
    blocks.truncate(&mut table, 6);
    assert_eq!(append(&mut blocks, &mut table, &[90]), [BlockCopy { from: 1, to: 3 }]);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<13>()), 12, "all is still there");
    blocks.check(&[&table]).unwrap();
}

#[test]
fn a_cached_block_that_another_table_holds_is_copied() {
    let mut blocks = manager(8);
    let whole = filled(&mut blocks, &tokens::<8>());
    let mut part = blocks.fork(&whole);
    blocks.truncate(&mut part, 7);
    assert_eq!(append(&mut blocks, &mut part, &[7]), [BlockCopy { from: 1, to: 2 }]);
    assert_eq!(part.ids(), whole.ids(), "the same token again: the twin is given back");
    blocks.check(&[&whole, &part]).unwrap();
}

#[test]
fn a_cleared_cache_leaves_tables_alone() {
    let mut blocks = manager(8);
    let gone = filled(&mut blocks, &[9, 9, 9, 9]);
    let mut table = filled(&mut blocks, &tokens::<8>());
    blocks.release(gone);
    blocks.clear_prefix_cache();
    assert_eq!((blocks.n_free(), table.ids()), (6, &[1, 2][..]));
    append(&mut blocks, &mut table, &[1, 2, 3, 4]);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<9>()), 0);
    blocks.check(&[&table]).unwrap();
    blocks.release(table);
    blocks.check(&[]).unwrap();
    assert_eq!(blocks.n_free(), 8);
}

#[test]
fn a_lost_table_is_found() {
    let mut blocks = manager(8);
    let table = filled(&mut blocks, &tokens::<8>());
    drop(table);
    let found = blocks.check(&[]).unwrap_err();
    assert!(found.contains("BlockId(0) is Held(1), and in 0 live tables"), "{found}");
}

#[test]
fn one_hash_for_all_serves_nothing_wrong() {
    let mut blocks = BlockManager::with_hash(8, 4, true, |_, _| 0);
    let first = filled(&mut blocks, &tokens::<9>());
    let second = filled(&mut blocks, &[5; 9]);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<9>()), 4, "one block has the hash");
    assert_eq!(n_cached(&mut blocks, 0, &[5; 9]), 0);
    assert_eq!(n_cached(&mut blocks, 1, &tokens::<9>()), 0);
    blocks.check(&[&first, &second]).unwrap();
}

/// The draft model's blocks are in the pool and are found again, by their own kind alone.
#[test]
fn a_draft_model_shares_its_own_kv() {
    let kind = KvKind::draft_model(1, 2, 7);
    let mut blocks = manager(8);
    let mut first = BlockTable::new(kind);
    assert_eq!(blocks.blocks_needed(&first, 19), 3, "blocks of eight tokens");
    append(&mut blocks, &mut first, &tokens::<19>());
    let second = blocks.match_prefix(kind, &tokens::<17>());
    assert_eq!((second.n_tokens(), second.ids()), (16, &first.ids()[..2]));
    assert_eq!(
        (blocks.n_used(), blocks.n_used_by_draft_models()),
        (3, 3),
        "shared ones count once"
    );
    for other in [KvKind::draft_model(2, 2, 7), KvKind::draft_model(1, 2, 0), KvKind::target(7)] {
        assert_eq!(blocks.match_prefix(other, &tokens::<17>()).n_tokens(), 0, "{other:?}");
    }
    blocks.check(&[&first, &second]).unwrap();
    blocks.release(first);
    assert_eq!(blocks.n_used_by_draft_models(), 2);
    blocks.release(second);
    assert_eq!((blocks.n_free(), blocks.n_used_by_draft_models()), (8, 0));
}

#[test]
fn draft_models_are_evicted_before_the_target() {
    let kind = KvKind::draft_model(1, 1, 0);
    let mut blocks = manager(4);
    let target = filled(&mut blocks, &tokens::<8>());
    let mut draft = BlockTable::new(kind);
    append(&mut blocks, &mut draft, &tokens::<8>());
    blocks.release(target);
    blocks.release(draft);
    let mut other = BlockTable::new(KvKind::target(1));
    append(&mut blocks, &mut other, &[5; 4]);
    assert_eq!(other.ids(), [3], "the draft model's leaf, although it became idle last");
    append(&mut blocks, &mut other, &[6; 4]);
    assert_eq!(blocks.match_prefix(kind, &tokens::<9>()).n_tokens(), 0);
    assert_eq!(n_cached(&mut blocks, 0, &tokens::<9>()), 8, "the target has lost nothing");
    blocks.check(&[&other]).unwrap();
}

#[test]
fn tables_that_are_about_to_compute_one_block_have_one_hash() {
    let mut blocks = manager(8);
    let (prompt, empty) = (tokens::<9>(), BlockTable::default());
    let first = blocks.next_hash(&empty, &prompt).expect("a full block");
    assert_eq!(blocks.next_hash(&empty, &tokens::<5>()), Some(first), "the rest does not matter");
    assert_eq!(blocks.next_hash(&empty, &tokens::<4>()), None, "the last token does not count");
    let draft = BlockTable::new(KvKind::draft_model(1, 1, 0));
    assert_ne!(blocks.next_hash(&draft, &prompt), Some(first));
    let table = filled(&mut blocks, &tokens::<6>());
    let second = blocks.next_hash(&table, &prompt).expect("a full block");
    assert_ne!(second, first);
    assert_eq!(blocks.next_hash(&table, &tokens::<8>()), None);
    blocks.clear_prefix_cache();
    assert_eq!(blocks.next_hash(&table, &prompt), None, "the block before it is not cached");
    assert_eq!(BlockManager::new(8, 4, false).next_hash(&empty, &prompt), None);
}
