//! Kept probabilities against a pass of their own, bit by bit.

use super::*;
use crate::cpu::tests::backends;
use crate::testing::{Cache, LAYER, LAYERS, SelectionCase, Values};
use crate::{Backend, DecoderOps, DeviceMemory, PoolScores, SeqSpan};

/// Tokens in the cache: two whole tiles and a part of a third.
const LEN: usize = 700;

/// Candidates, in whole blocks of either size.
const CANDIDATES: u32 = 672;

/// Whether attention observes, or a pass of its own.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Attention,
    Pass,
}

/// The sums that the rows at `positions` give to each unit of the candidates.
fn sums(
    cache: &Cache,
    backend: &mut CpuBackend,
    chunks: &[usize],
    (positions, unit, window): (Range<usize>, KeptUnit, Option<u32>),
    by: By,
) -> Vec<f32> {
    let mut sums = Vec::new();
    let view = KvView::default();
    cache.run_chunks(backend, chunks, view, window, |backend, q, pool, batch| {
        let (first, n_rows) = (batch.positions[0] as usize, batch.tokens.len());
        if !(first..first + n_rows).contains(&positions.start) {
            return;
        }
        let mut ids = [0; LAYERS];
        let observation = Observation {
            seq: 0,
            rows: positions.start - first..positions.end - first,
            candidates: 0..CANDIDATES,
            granularity: if unit == KeptUnit::Token { 1 } else { cache.block_size as u32 },
            n_selected: 1,
            pool: PoolScores::None,
            out: &mut ids,
        };
        let (params, mut observations) = (cache.params(window), [observation]);
        backend.observers[0].scores.clear();
        match by {
            By::Pass => backend.observe(q, pool, LAYER, batch, params, &mut observations).unwrap(),
            By::Attention => {
                let cols = cache.n_heads * cache.head_dim;
                let mut out = backend.operand_rows(n_rows, cols).unwrap();
                backend
                    .observed_attention(q, pool, LAYER, batch, params, &mut observations, &mut out)
                    .unwrap();
            }
        }
        // With one KV head and one observation there is one unit, which the calling thread runs.
        let ObserveScratch { scores, sums: got, .. } = &backend.observers[0];
        assert_eq!(scores.is_empty(), by == By::Attention && n_rows <= SPLIT_TOKENS);
        sums = got[..CANDIDATES as usize / unit.tokens()].to_vec();
    });
    sums
}

fn bits(sums: &[f32]) -> Vec<u32> {
    sums.iter().map(|sum| sum.to_bits()).collect()
}

#[test]
fn attention_keeps_the_bits_of_a_pass_of_its_own() {
    let mut values = Values(21);
    for shape in [(1, 1, 128), (3, 1, 64), (7, 1, 24)] {
        let cache = Cache::new(&mut values, shape, LEN);
        // The last row sees no token of the first tile through the window.
        for window in [None, Some(600), Some(300)] {
            for unit in [KeptUnit::Group, KeptUnit::Token] {
                for positions in [LEN - 5..LEN - 4, LEN - 4..LEN - 1] {
                    let look = (positions, unit, window);
                    // The sums of the backend with one thread.
                    let mut alone = None;
                    for mut backend in backends() {
                        let case = format!("{} {shape:?} {look:?}", backend.description());
                        let mut of = |chunks: &[usize], by: By| {
                            bits(&sums(&cache, &mut backend, chunks, look.clone(), by))
                        };
                        let apart = of(&[LEN - 5, 5], By::Pass);
                        for chunks in [&[LEN][..], &[300, LEN - 316, 16], &[LEN - 5, 4, 1]] {
                            assert!(apart == of(chunks, By::Pass), "chunks {chunks:?}: {case}");
                            assert!(apart == of(chunks, By::Attention), "{chunks:?}: {case}");
                        }
                        alone = match alone.take() {
                            None => Some(apart),
                            Some(alone) => {
                                assert!(apart == alone, "threads: {case}");
                                None
                            }
                        };
                    }
                }
            }
        }
    }
}

/// Negative control: rows that are added in another order, or another row, change bits.
#[test]
fn other_orders_of_rows_and_other_rows_change_bits() {
    let cache = Cache::new(&mut Values(22), (3, 1, 64), LEN);
    for unit in [KeptUnit::Group, KeptUnit::Token] {
        for mut backend in backends() {
            let case = format!("{} {unit:?}", backend.description());
            let mut of = |positions: Range<usize>| {
                sums(&cache, &mut backend, &[LEN - 5, 5], (positions, unit, None), By::Attention)
            };
            let (both, first, second) =
                (of(LEN - 5..LEN - 3), of(LEN - 5..LEN - 4), of(LEN - 4..LEN - 3));
            assert_ne!(bits(&first), bits(&second), "{case}");
            let added: Vec<f32> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
            assert_ne!(bits(&both), bits(&added), "{case}");
            for (a, b) in both.iter().zip(&added) {
                assert!((a - b).abs() <= 1e-5 * a, "{case}: {a} {b}");
            }
        }
    }
}

/// Two sequences observe, one of them twice, and a third with a view of its own.
#[test]
fn observations_of_a_batch_select_as_alone() {
    let cache = Cache::new(&mut Values(23), (6, 2, 24), LEN);
    let tokens = SelectionCase {
        n_rows: 0, // rows are chosen below
        candidates: 0..CANDIDATES,
        is_blocks: false,
        n_selected: 30,
        pool: PoolScores::Max(3),
        window: None,
    };
    let blocks =
        SelectionCase { is_blocks: true, n_selected: 7, pool: PoolScores::None, ..tokens.clone() };
    let asked = [(1, &blocks), (0, &tokens), (1, &tokens), (2, &blocks)];
    for mut backend in backends() {
        let case = backend.description();
        let view = KvView::default();
        cache.run_chunks(&mut backend, &[LEN - 9, 9], view, None, |backend, q, pool, batch| {
            if batch.positions[0] == 0 {
                return;
            }
            let [all] = *batch.seqs else { panic!("one sequence") };
            let short = KvView { tail_start: 600, ..view };
            let spans = [(0, view), (3, view), (6, short)].map(|(first_row, view)| SeqSpan {
                first_row,
                n_rows: 3,
                view,
                ..all
            });
            let batch = Batch { seqs: &spans, ..*batch };
            let mut out = backend.operand_rows(9, cache.n_heads * cache.head_dim).unwrap();
            // The ids, and whether some keys were read once more.
            let mut select = |asked: &[(usize, &SelectionCase)], max_kept_bytes: usize| {
                let n_ids = |one: &SelectionCase| LAYERS * cache.n_kv_heads * one.n_selected;
                let mut ids: Vec<_> = asked.iter().map(|(_, one)| vec![0; n_ids(one)]).collect();
                let pairs = asked.iter().zip(&mut ids);
                let mut all: Vec<_> = pairs
                    .map(|((seq, one), ids)| cache.observation(one, *seq, 1..3, ids))
                    .collect();
                backend.observers.iter_mut().for_each(|observer| observer.scores.clear());
                let params = cache.params(None);
                let call =
                    backend.attention_call(q, pool, LAYER, &batch, params, &mut out).unwrap();
                backend.attend_and_observe(&call, pool, &batch, &mut all, max_kept_bytes).unwrap();
                let is_apart = backend.observers.iter().any(|observer| !observer.scores.is_empty());
                (ids, is_apart)
            };
            let (together, _) = select(&asked, MAX_KEPT_BYTES);
            // Two rows of three heads keep 64 bytes for each of three tiles, for both KV heads.
            let needed_bytes = 2 * 3 * 64 * 3 * 2;
            for (max_kept_bytes, expected) in [(needed_bytes, false), (needed_bytes - 1, true)] {
                let (ids, is_apart) = select(&asked[..1], max_kept_bytes);
                assert_eq!(is_apart, expected, "{max_kept_bytes} bytes: {case}");
                assert!(ids[0] == together[0], "{max_kept_bytes} bytes: {case}");
            }
            let alone = asked.chunks(1).flat_map(|one| select(one, MAX_KEPT_BYTES).0);
            assert!(alone.eq(together.iter().cloned()), "{case}");
            // Negative control: other sequences have other rows.
            assert_ne!(together[0], together[3], "{case}");
            assert_ne!(together[1], together[2], "{case}");
        });
    }
}
