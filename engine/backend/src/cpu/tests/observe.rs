//! What rows attend to most, against float64; spans that leave the cache as it is.

use super::*;
use crate::PoolScores;
use std::ops::Range;

/// What a test asks of the last rows of a cache.
#[derive(Clone, Debug)]
struct Question {
    n_rows: usize,
    candidates: Range<u32>,
    is_blocks: bool,
    n_selected: usize,
    pool: PoolScores,
    window: Option<u32>,
}

impl Cache {
    /// The ids that the last rows of the last chunk select, per KV head.
    fn observe(
        &self,
        backend: &mut CpuBackend,
        chunks: &[usize],
        question: &Question,
    ) -> Vec<Vec<u32>> {
        let n = question.n_selected;
        let len: usize = chunks.iter().sum();
        let reach = Reach { scale: self.scale(), window: question.window };
        let mut out = Vec::new();
        self.run_chunks(backend, chunks, KvView::default(), |backend, q, pool, batch| {
            let n_rows = batch.tokens.len();
            if *batch.positions.last().unwrap() as usize + 1 < len {
                return;
            }
            let first = n_rows - question.n_rows;
            let mut ask = |batch: &Batch<'_>, seq: usize, rows: Range<usize>| {
                let mut out = vec![u32::MAX; LAYERS * self.n_kv_heads * n];
                let mut observation = Observation {
                    seq,
                    rows,
                    candidates: question.candidates.clone(),
                    granularity: if question.is_blocks { self.block_size as u32 } else { 1 },
                    n_selected: n,
                    pool: question.pool,
                    out: &mut out,
                };
                backend
                    .observe(q, pool, LAYER, batch, reach, std::slice::from_mut(&mut observation))
                    .unwrap();
                out
            };
            out = ask(batch, 0, first..n_rows);
            // The same rows as a sequence of their own, after another.
            let [all] = *batch.seqs else { panic!("one sequence") };
            let before = SeqSpan { n_rows: first, ..all };
            let rest = SeqSpan { first_row: first, n_rows: question.n_rows, ..all };
            let apart = ask(&Batch { seqs: &[before, rest], ..*batch }, 1, 0..question.n_rows);
            assert_eq!(out, apart, "{}", backend.description());
        });
        let (other_layers, here) = out.split_at(LAYER * self.n_kv_heads * n);
        assert!(other_layers.iter().all(|&id| id == u32::MAX), "another layer's ids");
        here.chunks(n).map(<[u32]>::to_vec).collect()
    }

    /// Scores of the candidates in float64, per KV head.
    fn scores(&self, len: usize, question: &Question) -> Vec<Vec<f64>> {
        let group_size = self.n_heads / self.n_kv_heads;
        let candidates = question.candidates.start as usize..question.candidates.end as usize;
        let of_head = |kv_head: usize| {
            let mut sums = vec![0.0; len];
            for p in len - question.n_rows..len {
                let earliest = question.window.map_or(0, |w| (p + 1).saturating_sub(w as usize));
                let seen: Vec<usize> = (earliest..=p).collect();
                for head in kv_head * group_size..(kv_head + 1) * group_size {
                    for (at, x) in seen.iter().zip(self.probabilities(p, head, &seen)) {
                        sums[*at] += x;
                    }
                }
            }
            let sums = &sums[candidates.clone()];
            if question.is_blocks {
                return sums.chunks(self.block_size).map(|block| block.iter().sum()).collect();
            }
            let (PoolScores::Average(width) | PoolScores::Max(width)) = question.pool else {
                return sums.to_vec();
            };
            let pooled = |i: usize| {
                let near = (0..sums.len()).filter(|j| j.abs_diff(i) <= width / 2).map(|j| sums[j]);
                match question.pool {
                    PoolScores::Max(_) => near.fold(0.0, f64::max),
                    _ => near.sum::<f64>() / width as f64,
                }
            };
            (0..sums.len()).map(pooled).collect()
        };
        (0..self.n_kv_heads).map(of_head).collect()
    }

    /// Whether `ids` are the highest of `scores`, give or take rounding.
    fn are_highest(&self, ids: &[u32], scores: &[f64], question: &Question, slack: f64) -> bool {
        let unit = if question.is_blocks { self.block_size as u32 } else { 1 };
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = sorted[question.n_selected - 1];
        let is_selected = |i: usize| ids.contains(&(question.candidates.start / unit + i as u32));
        ids.is_sorted_by(|a, b| a < b)
            && (0..scores.len()).filter(|&i| is_selected(i)).count() == question.n_selected
            && scores.iter().enumerate().all(|(i, &score)| match is_selected(i) {
                true => score >= threshold * (1.0 - slack),
                false => score <= threshold * (1.0 + slack),
            })
    }
}

fn slack(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::Bf16 => 6e-2,
    }
}

#[test]
fn selections_agree_with_float64() {
    use PoolScores::{Average, Max, None as Unpooled};
    let mut values = Values(7);
    for shape in [(3, 1, 64), (4, 4, 16), (6, 2, 24), (7, 1, 128)] {
        let len = 330 + values.below(60);
        let cache = Cache::new(&mut values, shape, len);
        let block = cache.block_size as u32;
        let end = 300 / block * block;
        let base = Question {
            n_rows: 1,
            candidates: 5..317,
            is_blocks: false,
            n_selected: 40,
            pool: Unpooled,
            window: None,
        };
        let blocks =
            Question { candidates: block..end, is_blocks: true, n_selected: 6, ..base.clone() };
        let questions = [
            base.clone(),
            Question { n_rows: 9, ..base.clone() },
            Question { n_rows: 9, pool: Average(7), ..base.clone() },
            Question { pool: Max(5), n_selected: 41, ..base.clone() },
            Question { window: Some(150), n_rows: 3, ..base.clone() },
            Question { n_selected: 312, ..base },
            blocks.clone(),
            Question { n_rows: 13, window: Some(270), ..blocks },
        ];
        for question in questions {
            let scores = cache.scores(len, &question);
            // Of backends that differ in the number of threads only, the first.
            let mut alone = None;
            for mut backend in backends() {
                let what = format!("{} {shape:?} {question:?}", backend.description());
                let got = cache.observe(&mut backend, &[100, len - 100], &question);
                assert!(got == cache.observe(&mut backend, &[len], &question), "chunks: {what}");
                alone = match alone.take() {
                    None => Some(got.clone()),
                    Some(alone) => {
                        assert!(got == alone, "threads: {what}");
                        None
                    }
                };
                let slack = slack(backend.dtype);
                for (ids, scores) in got.iter().zip(&scores) {
                    assert!(cache.are_highest(ids, scores, &question, slack), "{what}: {ids:?}");
                }
            }
        }
    }
}

/// The negative control: other rows, another head, other pooling or another window are noticed.
#[test]
fn selections_of_something_else_are_noticed() {
    let mut values = Values(8);
    let len = 340;
    let cache = Cache::new(&mut values, (6, 2, 24), len);
    let base = Question {
        n_rows: 4,
        candidates: 5..317,
        is_blocks: false,
        n_selected: 40,
        pool: PoolScores::None,
        window: None,
    };
    let pool = PoolScores::Average(5);
    let others = [
        Question { n_rows: 3, ..base.clone() },
        Question { pool, ..base.clone() },
        Question { window: Some(200), ..base.clone() },
    ];
    for mut backend in backends() {
        let slack = slack(backend.dtype);
        let got = cache.observe(&mut backend, &[len], &base);
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
    let question = Question {
        n_rows: 2,
        candidates: 32..140,
        is_blocks: false,
        n_selected: 5,
        pool: PoolScores::None,
        window: Some(48),
    };
    for mut backend in backends() {
        let got = cache.observe(&mut backend, &[200], &question);
        assert_eq!(got, [[32, 33, 34, 35, 36]; 2], "{}", backend.description());
    }
}

#[test]
fn impossible_observations_are_refused() {
    let mut values = Values(10);
    let cache = Cache::new(&mut values, (2, 1, 16), 100);
    let block = cache.block_size as u32;
    let mut backend = CpuBackend::new(CpuConfig::default()).unwrap();
    let reach = Reach { scale: 1.0, window: None };
    type Change<'a> = &'a dyn Fn(&mut Observation<'_>);
    cache.run_chunks(&mut backend, &[60, 40], KvView::default(), |backend, q, pool, batch| {
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
            backend.observe(q, pool, LAYER, batch, reach, std::slice::from_mut(&mut observation))
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
        for (what, change) in refused {
            let error = ask(change).expect_err(what);
            assert!(matches!(error, BackendError::Shape { op: "observe", .. }), "{what}: {error}");
        }
    });
}

#[test]
fn spans_that_write_no_kv_attend_to_what_is_there() {
    let mut values = Values(11);
    let cache = Cache::new(&mut values, (4, 2, 16), 90);
    for mut backend in backends() {
        let reach = Reach { scale: cache.scale(), window: None };
        let mut out = backend.operand_rows(90, 64).unwrap();
        let mut q_again = backend.operand_rows(90, 64).unwrap();
        // Same queries; keys and values of a projection gone wrong.
        let mut qkv = backend.f32_rows(90, cache.width()).unwrap();
        for (i, &x) in cache.qkv.iter().enumerate() {
            let (row, i) = (i / cache.width(), i % cache.width());
            write(&mut qkv, backend.dtype, row, i, if i < 64 { x } else { -x });
        }
        let rotation = Rotation { rope: &cache.rope, qk_norm: None };
        cache.run_chunks(&mut backend, &[90], KvView::default(), |backend, q, pool, batch| {
            let mut attend = |q: &Tensor, pool: &KvPool, backend: &mut CpuBackend| {
                backend.attention(q, pool, LAYER, batch, reach, &mut out).unwrap();
                (0..90).map(|row| read_operand(&out, backend.dtype, row)).collect::<Vec<_>>()
            };
            let before = attend(q, pool, backend);
            for writes_kv in [false, true] {
                let seqs = [SeqSpan { writes_kv, ..batch.seqs[0] }];
                let batch = Batch { seqs: &seqs, ..*batch };
                backend
                    .rope_and_store_kv(&qkv, &rotation, &batch, LAYER, pool, &mut q_again)
                    .unwrap();
                let after = attend(&q_again, pool, backend);
                assert_eq!(before == after, !writes_kv, "{}", backend.description());
            }
        });
    }
}
