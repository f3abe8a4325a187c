//! Tests of observations against float64, and of spans that leave the cache as it is.

use super::*;
use crate::{Observation, PoolScores};
use std::ops::Range;

#[test]
fn selections_agree_with_float64() {
    use PoolScores::{Average, Max, None as Unpooled};
    let mut values = Values(7);
    for shape in [(3, 1, 64), (4, 4, 16), (6, 2, 24), (7, 1, 128)] {
        let len = 330 + values.below(60);
        let cache = Cache::new(&mut values, shape, len);
        let block = cache.block_size as u32;
        let end = 300 / block * block;
        let base = SelectionCase {
            n_rows: 1,
            candidates: 5..317,
            is_blocks: false,
            n_selected: 40,
            pool: Unpooled,
            window: None,
        };
        let blocks = SelectionCase {
            candidates: block..end,
            is_blocks: true,
            n_selected: 6,
            ..base.clone()
        };
        let selection_cases = [
            base.clone(),
            SelectionCase { n_rows: 9, ..base.clone() },
            SelectionCase { n_rows: 9, pool: Average(7), ..base.clone() },
            SelectionCase { pool: Max(5), n_selected: 41, ..base.clone() },
            SelectionCase { window: Some(150), n_rows: 3, ..base.clone() },
            SelectionCase { n_selected: 312, ..base },
            blocks.clone(),
            SelectionCase { n_rows: 13, window: Some(270), ..blocks },
        ];
        for selection_case in selection_cases {
            let scores = cache.scores(len, &selection_case);
            // The selection of the first of two backends that differ only in the number of threads.
            let mut alone = None;
            for mut backend in backends() {
                let case = format!("{} {shape:?} {selection_case:?}", backend.description());
                let mut observe =
                    |chunks: &[usize], by| cache.observe(&mut backend, chunks, &selection_case, by);
                let got = observe(&[100, len - 100], ObservedBy::Itself);
                assert!(got == observe(&[len], ObservedBy::Itself), "chunks: {case}");
                for n in [15, 40] {
                    let together = observe(&[len - n, n], ObservedBy::Attention);
                    assert!(got == together, "observed by attention: {case}");
                }
                alone = match alone.take() {
                    None => Some(got.clone()),
                    Some(alone) => {
                        assert!(got == alone, "threads: {case}");
                        None
                    }
                };
                let slack = slack(backend.formats.operands);
                for (ids, scores) in got.iter().zip(&scores) {
                    assert!(
                        cache.are_highest(ids, scores, &selection_case, slack),
                        "{case}: {ids:?}"
                    );
                }
            }
        }
    }
}

/// Negative control: other rows, another head, other pooling or another window change the selection.
#[test]
fn selections_of_something_else_are_noticed() {
    let mut values = Values(8);
    let len = 340;
    let cache = Cache::new(&mut values, (6, 2, 24), len);
    let base = SelectionCase {
        n_rows: 4,
        candidates: 5..317,
        is_blocks: false,
        n_selected: 40,
        pool: PoolScores::None,
        window: None,
    };
    let pool = PoolScores::Average(5);
    let others = [
        SelectionCase { n_rows: 3, ..base.clone() },
        SelectionCase { pool, ..base.clone() },
        SelectionCase { window: Some(200), ..base.clone() },
    ];
    for mut backend in backends() {
        let slack = slack(backend.formats.operands);
        let got = cache.observe(&mut backend, &[len], &base, ObservedBy::Itself);
        let scores = cache.scores(len, &base);
        assert!(cache.are_highest(&got[0], &scores[0], &base, slack));
        assert!(!cache.are_highest(&got[1], &scores[0], &base, slack), "another head");
        for other in &others {
            let scores = cache.scores(len, other);
            assert!(!cache.are_highest(&got[0], &scores[0], other, slack), "{other:?}");
        }
    }
}

#[test]
fn ties_go_to_the_lower_position() {
    let mut values = Values(9);
    let cache = Cache::new(&mut values, (4, 2, 16), 200);
    // The rows see nothing before position 150: all candidates score 0.
    let selection_case = SelectionCase {
        n_rows: 2,
        candidates: 32..140,
        is_blocks: false,
        n_selected: 5,
        pool: PoolScores::None,
        window: Some(48),
    };
    for mut backend in backends() {
        let (case, by) = (backend.description(), ObservedBy::Attention);
        let got = cache.observe(&mut backend, &[190, 10], &selection_case, by);
        assert_eq!(got, [[32, 33, 34, 35, 36]; 2], "{case}");
    }
}

#[test]
fn impossible_observations_are_refused() {
    let mut values = Values(10);
    let cache = Cache::new(&mut values, (2, 1, 16), 100);
    let block = cache.block_size as u32;
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let params = AttentionParams { scale: 1.0, window: None };
    type Change<'a> = &'a dyn Fn(&mut Observation<'_>);
    cache.run_chunks(
        &mut backend,
        &[60, 40],
        KvView::default(),
        None,
        |backend, q, pool, batch| {
            if batch.positions[0] == 0 {
                return;
            }
            let mut ask = |change: Change<'_>| {
                let mut out = vec![0; LAYERS * 4];
                let mut observation = Observation {
                    seq: 0,
                    rows: 38..40,
                    candidates: 0..99,
                    granularity: 1,
                    n_selected: 4,
                    pool: PoolScores::None,
                    out: &mut out,
                };
                change(&mut observation);
                backend.observe(
                    q,
                    pool,
                    LAYER,
                    batch,
                    params,
                    std::slice::from_mut(&mut observation),
                )
            };
            ask(&|_| {}).unwrap();
            ask(&|o| o.candidates = 95..99).unwrap();
            let refused: [(&str, Change<'_>); 11] = [
                ("a sequence that is not there", &|o| o.seq = 1),
                ("no rows", &|o| o.rows = 3..3),
                ("rows after the last", &|o| o.rows = 39..41),
                ("a candidate after the first row", &|o| o.candidates = 0..100),
                ("candidates that end before they start", &|o| {
                    o.candidates = Range { start: 9, end: 8 }
                }),
                ("too few candidates", &|o| o.candidates = 96..99),
                ("another granularity", &|o| o.granularity = 8),
                ("a part of a block", &|o| {
                    o.granularity = block;
                    o.candidates = 1..64;
                }),
                ("pooled blocks", &|o| {
                    o.granularity = block;
                    o.candidates = 0..64;
                    o.n_selected = 1;
                    o.pool = PoolScores::Max(3);
                }),
                ("an even window", &|o| o.pool = PoolScores::Average(4)),
                ("out of another size", &|o| o.n_selected = 3),
            ];
            for (case, change) in refused {
                let error = ask(change).expect_err(case);
                assert!(
                    matches!(error, BackendError::Shape { op: "observe", .. }),
                    "{case}: {error}"
                );
            }
        },
    );
}

#[test]
fn spans_that_write_no_kv_attend_to_what_is_there() {
    let mut values = Values(11);
    let cache = Cache::new(&mut values, (4, 2, 16), 90);
    for mut backend in backends() {
        let params = AttentionParams { scale: cache.scale(), window: None };
        let mut out = backend.operand_rows(90, 64).unwrap();
        let mut q_again = backend.operand_rows(90, 64).unwrap();
        // The same queries; keys and values are negated.
        let mut qkv = backend.f32_rows(90, cache.width()).unwrap();
        for (row, values) in cache.qkv.chunks(cache.width()).enumerate() {
            let flipped = |(i, x): (usize, &f32)| if i < 64 { *x } else { -x };
            let values: Vec<f32> = values.iter().enumerate().map(flipped).collect();
            backend.write(&mut qkv, row, &values);
        }
        let rope_params = RopeParams { rope: &cache.rope, qk_norm: None };
        cache.run_chunks(
            &mut backend,
            &[90],
            KvView::default(),
            None,
            |backend, q, pool, batch| {
                let mut attend = |q: &Tensor, pool: &KvPool, backend: &mut CpuBackend| {
                    backend.attention(q, pool, LAYER, batch, params, &mut out).unwrap();
                    (0..90).map(|row| backend.read(&out, row)).collect::<Vec<_>>()
                };
                let before = attend(q, pool, backend);
                for writes_kv in [false, true] {
                    let seqs = [SeqSpan { writes_kv, ..batch.seqs[0] }];
                    let batch = Batch { seqs: &seqs, ..*batch };
                    backend
                        .rope_and_store_kv(&qkv, &rope_params, &batch, LAYER, pool, &mut q_again)
                        .unwrap();
                    let after = attend(&q_again, pool, backend);
                    assert_eq!(before == after, !writes_kv, "{}", backend.description());
                }
            },
        );
    }
}
