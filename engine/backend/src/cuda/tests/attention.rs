//! Attention, stores, copies and observations through a paged cache.

use super::*;
use crate::{Observation, PoolScores, Selected, SelectedIds};

const SHAPES: [(usize, usize, usize); 3] = [(3, 1, 64), (7, 1, 24), (4, 2, 96)];

#[test]
fn attention_agrees_with_float64() {
    let mut values = Values(3);
    let Some(mut backend) = backend() else { return };
    for shape in SHAPES {
        let cache = Cache::new(&mut values, shape, 200);
        for window in [None, Some(40)] {
            let got = cache.run(&mut backend, &[130, 69, 1], KvView::default(), window);
            for p in [0, 1, 15, 16, 129, 150, 199] {
                let sees = |_, at: usize| window.is_none_or(|w| at + w as usize > p);
                let expected = cache.expected(p, sees);
                let case = format!("{shape:?} position {p} window {window:?}");
                assert_close(&case, &expected, &got[p], attention_tolerance(OperandFormat::Bf16));
            }
        }
    }
}

#[test]
fn attention_over_views_agrees_with_float64() {
    let mut values = Values(4);
    let Some(mut backend) = backend() else { return };
    for shape in [(3, 1, 64), (4, 2, 24)] {
        let len = 330;
        let cache = Cache::new(&mut values, shape, len);
        let runs = (LAYERS * shape.1) as u32;
        // Every layer and KV head has different ids.
        let ids = |n: u32, step: u32| -> Vec<u32> {
            (0..runs).flat_map(|run| (0..n).map(move |i| i * step + run % step)).collect()
        };
        let (positions, blocks) = (ids(90, 3), ids(4, 2));
        let per_head = |ids, n| SelectedIds { ids, n, n_kv_heads: shape.1, version: 0 };
        let views = [
            KvView { selected: Selected::None, tail_start: 300 },
            KvView { selected: Selected::Tokens(per_head(&positions, 90)), tail_start: 300 },
            KvView { selected: Selected::Blocks(per_head(&blocks, 4)), tail_start: 300 },
            KvView {
                selected: Selected::Blocks(SelectedIds::everywhere(&blocks[..4])),
                tail_start: 299,
            },
        ];
        let p = len - 1;
        for view in views {
            for window in [None, Some(200)] {
                let sees = |kv_head: usize, at: usize| {
                    let selected = match view.selected {
                        Selected::None => false,
                        Selected::Blocks(b) => {
                            b.of(LAYER, kv_head).contains(&((at / cache.block_size) as u32))
                        }
                        Selected::Tokens(t) => t.of(LAYER, kv_head).contains(&(at as u32)),
                    };
                    let tail = at >= view.tail_start as usize;
                    (selected || tail) && window.is_none_or(|w: u32| at + w as usize > p)
                };
                let expected = cache.expected(p, sees);
                let got = cache.run(&mut backend, &[310, 19, 1], view, window);
                let case = format!("{shape:?} {view:?} {window:?}");
                assert_close(&case, &expected, &got[p], attention_tolerance(OperandFormat::Bf16));
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_however_it_is_batched() {
    let mut values = Values(5);
    let Some(mut backend) = backend() else { return };
    let len = 1040;
    let cache = Cache::new(&mut values, (4, 2, 32), len);
    let whole = cache.run(&mut backend, &[len], KvView::default(), Some(700));
    let chunked = [500, 7, 250, 275, 1, 3, 4];
    let chunked = cache.run(&mut backend, &chunked, KvView::default(), Some(700));
    assert!(whole == chunked);
    assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "rows differ");
    // The control: a tail with another start cuts the same tokens into other partitions.
    let ids: Vec<u32> = (0..480 / cache.block_size as u32).collect();
    let selected = Selected::Blocks(SelectedIds::everywhere(&ids));
    let view = KvView { selected, tail_start: 480 };
    let full = cache.run(&mut backend, &[500, len - 500], KvView::default(), None);
    let shifted = cache.run(&mut backend, &[500, len - 500], view, None);
    assert!(full[..500] == shifted[..500] && full[500..] != shifted[500..]);
    let close: Vec<f64> = full[len - 1].iter().map(|&x| f64::from(x)).collect();
    assert_close("shifted partitions", &close, &shifted[len - 1], 2e-2);

    let (outputs, inputs, n_rows) = (70, 96, 29);
    let (x, w) = (values.take(n_rows * inputs), values.take(outputs * inputs));
    let ws = load(&mut backend, outputs, inputs, &w);
    let together = operand(&mut backend, &x, inputs);
    let mut out = backend.f32_rows(n_rows, outputs).unwrap();
    backend.linear(&together, n_rows, &ws, None, &mut out).unwrap();
    for (row, x) in x.chunks(inputs).enumerate() {
        let alone = operand(&mut backend, x, inputs);
        let mut one = backend.f32_rows(1, outputs).unwrap();
        backend.linear(&alone, 1, &ws, None, &mut one).unwrap();
        assert_eq!(backend.read(&one, 0), backend.read(&out, row));
    }
}

/// Decodes, verifications and prompts in one batch have the same bits as each sequence alone.
#[test]
fn sequences_of_a_ragged_batch_are_what_they_are_alone() {
    let mut values = Values(6);
    let Some(mut backend) = backend() else { return };
    let cache = Cache::new(&mut values, (4, 2, 32), 120);
    let table = cache.table.clone();
    let mut q_all = backend.operand_rows(46, 128).unwrap();
    let mut out = backend.operand_rows(46, 128).unwrap();
    let params = cache.params(None);
    cache.run_chunks(&mut backend, &[120], KvView::default(), None, |backend, q, pool, _| {
        let spans = [(80, 1), (90, 4), (3, 40), (119, 1)];
        let chosen = Selected::Blocks(SelectedIds::everywhere(&[0, 1]));
        let views = [KvView::default(), KvView { selected: chosen, tail_start: 85 }];
        let mut attend = |which: &[usize]| -> Vec<Vec<f32>> {
            let (mut positions, mut seqs) = (Vec::new(), Vec::new());
            for &i in which {
                let (first, n_rows) = spans[i];
                let first_row = positions.len();
                for position in first..first + n_rows {
                    let row = positions.len();
                    backend.write(&mut q_all, row, &backend.read(q, position));
                    positions.push(position as u32);
                }
                let view = views[usize::from(i == 1)];
                seqs.push(SeqSpan {
                    first_row,
                    n_rows,
                    block_table: &table,
                    writes_kv: false,
                    view,
                });
            }
            let tokens = vec![InputToken::known(0); positions.len()];
            let batch =
                Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
            cache.begin(backend, &batch, pool, None);
            backend.attention(&q_all, pool, LAYER, &batch, params, &mut out).unwrap();
            (0..positions.len()).map(|row| backend.read(&out, row)).collect()
        };
        let together = attend(&[0, 1, 2, 3]);
        let alone: Vec<_> = (0..4).flat_map(|i| attend(&[i])).collect();
        assert!(together == alone);
        // The control: the view changes the rows of its sequence.
        let expected = cache.expected(93, |_, _| true);
        let got: Vec<f64> = together[4].iter().map(|&x| f64::from(x)).collect();
        assert!(expected.iter().zip(&got).any(|(e, g)| (e - g).abs() > 0.05));
    });
}

#[test]
fn copied_blocks_and_draft_models_keep_what_they_hold() {
    let mut values = Values(7);
    let Some(mut backend) = backend() else { return };
    let mut cache = Cache::new(&mut values, (2, 2, 16), 60);
    (cache.block_size, cache.table) = (16, vec![0, 1, 2, 3]);
    let shape = KvShape {
        n_layers: 2 * LAYERS,
        n_kv_heads: 3,
        head_dim: 24,
        block_size: 16,
        n_blocks: 4,
        format: KvFormat::Bf16,
    };
    let host = backend.kv_pool(shape).unwrap();
    let mut draft_layout =
        backend.alias_kv_pool(&host, shape.draft_layout(LAYERS, 2, 16).unwrap()).unwrap();
    assert!(backend.alias_kv_pool(&host, KvShape { head_dim: 32, ..draft_layout.shape }).is_err());
    assert_eq!(draft_layout.shape.n_blocks, 12);
    // Draft-model block `i` lies in pool block `i % 4`. Block 9 becomes a copy of block 2.
    let tables = [vec![4, 11, 6, 2], vec![4, 11, 6, 9]];
    let mut qkv = backend.f32_rows(60, cache.width()).unwrap();
    let mut q = backend.operand_rows(60, 32).unwrap();
    let mut out = backend.operand_rows(60, 32).unwrap();
    for (row, values) in cache.qkv.chunks(cache.width()).enumerate() {
        backend.write(&mut qkv, row, values);
    }
    let (positions, tokens): (Vec<u32>, Vec<_>) =
        (0..60).map(|p| (p, InputToken::known(0))).unzip();
    let rope_params = crate::RopeParams { rope: &cache.rope, qk_norm: None };
    let mut run = |backend: &mut CudaBackend, pool: &mut KvPool, table: &[u32], writes_kv| {
        let view = KvView::default();
        let seqs = [SeqSpan { first_row: 0, n_rows: 60, block_table: table, writes_kv, view }];
        let batch = Batch { tokens: &tokens, positions: &positions, seqs: &seqs, logit_rows: &[] };
        cache.begin(backend, &batch, pool, None);
        backend.rope_and_store_kv(&qkv, &rope_params, &batch, LAYER, pool, &mut q).unwrap();
        backend.attention(&q, pool, LAYER, &batch, cache.params(None), &mut out).unwrap();
        (0..60).map(|row| backend.read(&out, row)).collect::<Vec<_>>()
    };
    let before = run(&mut backend, &mut draft_layout, &tables[0], true);
    let expected = cache.expected(59, |_, _| true);
    assert_close(
        "a draft model in the pool",
        &expected,
        &before[59],
        attention_tolerance(OperandFormat::Bf16),
    );
    assert!(before != run(&mut backend, &mut draft_layout, &tables[1], false), "not copied yet");
    backend.copy_blocks(&mut draft_layout, &[(2, 9)]).unwrap();
    assert!(before == run(&mut backend, &mut draft_layout, &tables[1], false));
    assert!(backend.copy_blocks(&mut draft_layout, &[(2, 12)]).is_err());
}

#[test]
fn selections_agree_with_float64() {
    use PoolScores::{Average, Max, None as Unpooled};
    let mut values = Values(8);
    let Some(mut backend) = backend() else { return };
    for shape in [(3, 1, 64), (6, 2, 24)] {
        let len = 230;
        let cache = Cache::new(&mut values, shape, len);
        let block = cache.block_size as u32;
        let base = SelectionCase {
            n_rows: 1,
            candidates: 5..217,
            is_blocks: false,
            n_selected: 40,
            pool: Unpooled,
            window: None,
        };
        let candidates = block..192 / block * block;
        let blocks = SelectionCase { candidates, is_blocks: true, n_selected: 3, ..base.clone() };
        let selection_cases = [
            SelectionCase { n_rows: 9, pool: Average(7), ..base.clone() },
            SelectionCase { pool: Max(5), n_selected: 41, ..base.clone() },
            SelectionCase { window: Some(150), n_rows: 3, ..base },
            blocks,
        ];
        for selection_case in selection_cases {
            let scores = cache.scores(len, &selection_case);
            let by = ObservedBy::Attention;
            let got = cache.observe(&mut backend, &[100, len - 100], &selection_case, by);
            let slack = slack(OperandFormat::Bf16);
            for (ids, scores) in got.iter().zip(&scores) {
                assert!(
                    cache.are_highest(ids, scores, &selection_case, slack),
                    "{shape:?} {selection_case:?}"
                );
            }
            if selection_case.is_blocks {
                continue; // there are too few blocks to differ
            }
            // The control: the selection does not fit the scores of another question, with more
            // rows and another window.
            let other = SelectionCase {
                n_rows: selection_case.n_rows + 1,
                window: Some(90),
                ..selection_case
            };
            let scores = cache.scores(len, &other);
            assert!(!cache.are_highest(&got[0], &scores[0], &other, slack), "{other:?}");
        }
    }
}

#[test]
fn impossible_observations_are_refused() {
    let mut values = Values(10);
    let Some(mut backend) = backend() else { return };
    let cache = Cache::new(&mut values, (2, 1, 16), 40);
    cache.run_chunks(&mut backend, &[40], KvView::default(), None, |backend, q, pool, batch| {
        let mut out = vec![0; LAYERS * 4];
        let mut ask = |seq: usize, n_selected: usize, granularity: u32| {
            let mut observation = Observation {
                seq,
                rows: 38..40,
                candidates: 0..32,
                granularity,
                n_selected,
                pool: PoolScores::None,
                out: &mut out,
            };
            let observations = std::slice::from_mut(&mut observation);
            backend.observe(q, pool, LAYER, batch, cache.params(None), observations)?;
            backend.finish_observing(observations)
        };
        ask(0, 4, 1).unwrap();
        for (seq, n_selected, granularity) in [(1, 4, 1), (0, 33, 1), (0, 3, 1), (0, 4, 7)] {
            let error = ask(seq, n_selected, granularity).unwrap_err();
            assert!(matches!(error, BackendError::Shape { op: "observe", .. }), "{error}");
        }
    });
}
