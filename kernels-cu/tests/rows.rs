//! Embeddings, norms, rotation, storing and copying of keys and values, on the emulation: against float64, and bitwise
//! where results must not change.

mod paged;

use galley_kernels_cu::bindings::*;
use galley_kernels_cu::emulated;
use paged::{NAN, Numbers, Pool, from_bf16, stride, to_bf16};
use std::ptr::{null, null_mut};

const BAD_CALL: i32 = GK_BAD_CALL;

/// Calls a launcher of the table.
macro_rules! launch {
    ($name:ident, $call:expr) => {{
        let call = $call;
        // SAFETY: the caller's buffers are as long as the call says.
        unsafe { emulated().$name.unwrap()(&call, null_mut()) }
    }};
}

/// Whether `got` equals `expected` up to the rounding to bf16 and a small error of f32 sums.
fn is_close(got: gk_bf16, expected: f64) -> bool {
    (f64::from(from_bf16(got)) - expected).abs() <= expected.abs() / 250.0 + 1e-5
}

#[test]
fn embeddings_are_rows_of_the_table() {
    let mut numbers = Numbers(1);
    for (n_cols, out_stride) in [(100, 100), (64, 64), (1030, 1033), (6, 7)] {
        let (n_tokens, table_stride) = (9, stride(n_cols));
        let table: Vec<_> =
            (0..n_tokens * table_stride).map(|_| to_bf16(numbers.normal())).collect();
        // Some tokens are placeholders, and one placeholder is out of range.
        let sampled = [5, 9].map(|token| gk_sampled { token, logprob: 0.0 });
        let named = [0, 1, 2].map(|sampled| GK_PLACEHOLDER_BIT | sampled);
        let given = [8, named[0], 3, named[1], 3, 9, named[2]];
        let tokens = [8, 5, 3, 9, 3, 9, 9];
        let mut out = vec![7.0_f32; tokens.len() * out_stride];
        let call = gk_embed {
            table: table.as_ptr(),
            tokens: given.as_ptr(),
            sampled: sampled.as_ptr(),
            out: out.as_mut_ptr(),
            table_stride: table_stride as i64,
            out_stride: out_stride as i64,
            n_rows: tokens.len() as i32,
            n_cols: n_cols as i32,
            n_tokens: n_tokens as i32,
            n_sampled: sampled.len() as i32,
        };
        assert_eq!(launch!(embed, call), 0);
        for (token, row) in tokens.iter().zip(out.chunks(out_stride)) {
            let (row, beyond) = row.split_at(n_cols);
            assert!(beyond.iter().all(|&x| x == 7.0));
            match table.get(*token as usize * table_stride..) {
                // A token that is not in the table gives NaN.
                None | Some([]) => assert!(row.iter().all(|x| x.is_nan())),
                Some(from) => {
                    assert!(row.iter().zip(from).all(|(&x, &t)| x == from_bf16(t)));
                }
            }
        }
        assert_eq!(launch!(embed, gk_embed { table_stride: n_cols as i64 + 1, ..call }), BAD_CALL);
        assert_eq!(launch!(embed, gk_embed { sampled: null(), ..call }), BAD_CALL);
        assert_eq!(launch!(embed, gk_embed { n_rows: 0, table_stride: 1, ..call }), 0);
    }
}

/// Normalises rows `rows` of `x`, which has stride `x_stride`.
fn norm(
    x: &[f32],
    x_stride: usize,
    weight: &[f32],
    rows: Option<&[u32]>,
    n: usize,
) -> Vec<gk_bf16> {
    let out_stride = stride(weight.len());
    let mut out = vec![NAN; n * out_stride];
    let call = gk_rms_norm {
        x: x.as_ptr(),
        weight: weight.as_ptr(),
        rows: rows.map_or(null(), <[u32]>::as_ptr),
        out: out.as_mut_ptr(),
        x_stride: x_stride as i64,
        out_stride: out_stride as i64,
        n_rows: n as i32,
        n_cols: weight.len() as i32,
        eps: 1e-5,
    };
    assert_eq!(launch!(rms_norm, call), 0);
    assert_eq!(
        launch!(rms_norm, gk_rms_norm { out_stride: out_stride as i64 + 8, ..call }),
        BAD_CALL
    );
    out
}

#[test]
fn norms_agree_with_float64_and_with_themselves() {
    let mut numbers = Numbers(2);
    for n_cols in [6, 100, 576, 2050] {
        let n = 5;
        let x = numbers.normals(n * n_cols);
        let weight = numbers.normals(n_cols);
        let all = norm(&x, n_cols, &weight, None, n);
        for (row, out) in x.chunks(n_cols).zip(all.chunks(stride(n_cols))) {
            let square: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
            let factor = 1.0 / (square / n_cols as f64 + 1e-5).sqrt();
            for i in 0..n_cols {
                let expected = f64::from(row[i]) * factor * f64::from(weight[i]);
                assert!(is_close(out[i], expected), "{n_cols} {i}");
                assert!(
                    !is_close(out[i], expected + expected.abs() * 0.02 + 1e-3),
                    "no difference is noticed"
                );
            }
            assert!(out[n_cols..].iter().all(|&x| x == 0));
        }
        // Gathered rows, a single row, and a row that begins at any address have the same bits.
        let rows = [3, 0, 3];
        let some = norm(&x, n_cols, &weight, Some(&rows), rows.len());
        for (&row, out) in rows.iter().zip(some.chunks(stride(n_cols))) {
            assert_eq!(out, &all[row as usize * stride(n_cols)..][..stride(n_cols)]);
        }
        let mut apart = vec![f32::NAN; n_cols + 1];
        apart[1..].copy_from_slice(&x[n_cols..2 * n_cols]);
        let alone = norm(&apart[1..], n_cols, &weight, None, 1);
        assert_eq!(alone, &all[stride(n_cols)..][..stride(n_cols)]);
        // Control: another value in one column changes other columns.
        apart[1] *= 1.5;
        assert_ne!(norm(&apart[1..], n_cols, &weight, None, 1)[1..], alone[1..]);
    }
}

#[test]
fn angles_are_exact_to_the_last_bit_or_nearly() {
    // 355 and 104348 are nearly multiples of pi: their sines show a reduction that is too coarse.
    let positions =
        [0, 1, 2, 77, 355, 4095, 32767, 104_348, 105_615, 105_616, 131_071, 131_072, 1_000_003];
    let inv_freq: Vec<f32> = (0..32).map(|i| 500_000_f32.powf(-i as f32 / 32.0)).collect();
    let (n, half) = (positions.len(), inv_freq.len());
    let mut angles = vec![f32::NAN; n * 2 * half];
    let call = gk_angles {
        positions: positions.as_ptr(),
        inv_freq: inv_freq.as_ptr(),
        angles: angles.as_mut_ptr(),
        n_rows: n as i32,
        half: half as i32,
        scale: 1.25,
    };
    assert_eq!(launch!(angles, call), 0);
    let mut unlike_unrounded = 0;
    for (&position, row) in positions.iter().zip(angles.chunks(2 * half)) {
        for (i, &inv_freq) in inv_freq.iter().enumerate() {
            let angle = f64::from(position as f32 * inv_freq);
            let unrounded = f64::from(position) * f64::from(inv_freq);
            for (got, exact, other) in [
                (row[i], angle.cos(), unrounded.cos()),
                (row[half + i], angle.sin(), unrounded.sin()),
            ] {
                let off =
                    |exact: f64| (f64::from(got) / 1.25 - exact).abs() / exact.abs().max(1e-6);
                assert!(off(exact) < 1.3e-7, "{position} {i}: {got} and {exact}");
                unlike_unrounded += usize::from(off(other) > 1e-5);
            }
        }
    }
    assert!(unlike_unrounded > 20, "the control: an angle that is not rounded is noticed");
    assert_eq!(launch!(angles, gk_angles { half: 0, ..call }), BAD_CALL);
}

/// Projections of some rows, and the slots that take their keys and values.
struct Rows {
    shape: (usize, usize, usize), // heads, KV heads, head_dim
    qkv: Vec<f32>,
    angles: Vec<f32>,
    norms: Option<[Vec<f32>; 2]>,
    slots: Vec<i32>,
}

const LAYER: usize = 1;

impl Rows {
    fn new(
        numbers: &mut Numbers,
        shape: (usize, usize, usize),
        slots: Vec<i32>,
        norms: bool,
    ) -> Self {
        let (n_heads, n_kv_heads, head_dim) = shape;
        let n = slots.len();
        let qkv = numbers.normals(n * (n_heads + 2 * n_kv_heads) * head_dim);
        let mut angles = vec![0.0; n * head_dim];
        for row in angles.chunks_mut(head_dim) {
            for i in 0..head_dim / 2 {
                (row[head_dim / 2 + i], row[i]) = (numbers.normal() * 3.0).sin_cos();
            }
        }
        let norms = norms.then(|| [numbers.normals(head_dim), numbers.normals(head_dim)]);
        Self { shape, qkv, angles, norms, slots }
    }

    /// Rotates and stores rows `from` to `to`; returns the queries.
    fn run(&self, pool: &mut Pool, from: usize, to: usize) -> Vec<gk_bf16> {
        let (n_heads, n_kv_heads, head_dim) = self.shape;
        let width = (n_heads + 2 * n_kv_heads) * head_dim;
        let q_stride = stride(n_heads * head_dim);
        let mut q = vec![NAN; (to - from) * q_stride];
        let norm = |i: usize| self.norms.as_ref().map_or(null(), |norms| norms[i].as_ptr());
        let call = gk_rope_store {
            qkv: self.qkv[from * width..].as_ptr(),
            angles: self.angles[from * head_dim..].as_ptr(),
            q_norm: norm(0),
            k_norm: norm(1),
            slots: self.slots[from..].as_ptr(),
            q: q.as_mut_ptr(),
            kv: pool.of_layer(LAYER),
            qkv_stride: width as i64,
            q_stride: q_stride as i64,
            n_rows: (to - from) as i32,
            n_heads: n_heads as i32,
            eps: 1e-6,
        };
        assert_eq!(launch!(rope_store, call), 0);
        for kv in [
            gk_kv { head_dim: head_dim as i32 + 4, ..call.kv },
            gk_kv { block_size: 8, ..call.kv },
            gk_kv { layer: call.kv.n_layers, ..call.kv },
        ] {
            assert_eq!(launch!(rope_store, gk_rope_store { kv, ..call }), BAD_CALL);
        }
        q
    }

    /// A head of a row in float64. `kind` is 0 for queries, 1 for keys, 2 for values.
    fn expected(&self, row: usize, kind: usize, head: usize) -> Vec<f64> {
        let (n_heads, n_kv_heads, head_dim) = self.shape;
        let part = [0, n_heads, n_heads + n_kv_heads][kind] + head;
        let at = (row * (n_heads + 2 * n_kv_heads) + part) * head_dim;
        let mut x: Vec<f64> = self.qkv[at..][..head_dim].iter().map(|&x| x.into()).collect();
        if kind == 2 {
            return x;
        }
        if let Some(norms) = &self.norms {
            let square: f64 = x.iter().map(|x| x * x).sum();
            let factor = 1.0 / (square / head_dim as f64 + 1e-6).sqrt();
            for (x, &w) in x.iter_mut().zip(&norms[kind]) {
                *x *= factor * f64::from(w);
            }
        }
        let angles = &self.angles[row * head_dim..][..head_dim];
        let half = head_dim / 2;
        for i in 0..half {
            let (cos, sin) = (f64::from(angles[i]), f64::from(angles[half + i]));
            (x[i], x[half + i]) = (x[i] * cos - x[half + i] * sin, x[half + i] * cos + x[i] * sin);
        }
        x
    }
}

fn all_close(got: &[gk_bf16], expected: &[f64]) -> bool {
    // A difference of two products can be small even if the products are not.
    let near = |(&got, &x): (&gk_bf16, &f64)| {
        (f64::from(from_bf16(got)) - x).abs() <= x.abs() / 250.0 + 3e-6
    };
    got.len() == expected.len() && got.iter().zip(expected).all(near)
}

#[test]
fn rotated_rows_agree_with_float64_and_with_themselves() {
    let mut numbers = Numbers(3);
    let shapes =
        [(4, 4, 8), (3, 1, 16), (6, 2, 24), (7, 1, 64), (2, 1, 128), (4, 2, 256), (5, 5, 40)];
    for (i, shape) in shapes.into_iter().enumerate() {
        let (n_heads, n_kv_heads, head_dim) = shape;
        let (block_size, n_blocks) = ([16, 32][i % 2], 7);
        let new_pool = || Pool::new((3, n_kv_heads, head_dim), block_size, n_blocks, i % 3 == 1);
        let mut slots: Vec<i32> =
            numbers.shuffled(n_blocks * block_size)[..11].iter().map(|&slot| slot as i32).collect();
        slots[4] = -1;
        let rows = Rows::new(&mut numbers, shape, slots, i % 2 == 0);
        let mut pool = new_pool();
        let n_rows = rows.slots.len();
        let q = rows.run(&mut pool, 0, n_rows);
        let q_stride = stride(n_heads * head_dim);
        let mut n_written = 0;
        for row in 0..n_rows {
            let (heads, beyond) = q[row * q_stride..][..q_stride].split_at(n_heads * head_dim);
            assert!(beyond.iter().all(|&x| x == 0));
            for (head, got) in heads.chunks(head_dim).enumerate() {
                assert!(all_close(got, &rows.expected(row, 0, head)), "{shape:?} {row} {head}");
                assert!(!all_close(got, &rows.expected((row + 1) % n_rows, 0, head)), "control");
                assert!(!all_close(got, &rows.expected(row, 2, 0)), "control");
            }
            let Ok(slot) = usize::try_from(rows.slots[row]) else { continue };
            for head in 0..n_kv_heads {
                let (key, value) = (pool.key(LAYER, head, slot), pool.value(LAYER, head, slot));
                assert!(all_close(key, &rows.expected(row, 1, head)), "{shape:?} {row} {head}");
                assert!(all_close(value, &rows.expected(row, 2, head)), "{shape:?} {row} {head}");
                assert!(!all_close(key, &rows.expected(row, 2, head)), "control");
                n_written += 2 * head_dim;
            }
        }
        // Nothing else is written.
        assert_eq!(pool.memory.iter().filter(|&&x| x != NAN).count(), n_written);
        // Five rows one by one, and the rest in one call: the same bits.
        let mut apart = new_pool();
        let mut q_apart = Vec::new();
        for row in 0..5 {
            q_apart.extend(rows.run(&mut apart, row, row + 1));
        }
        q_apart.extend(rows.run(&mut apart, 5, n_rows));
        assert!(q_apart == q && apart.memory == pool.memory, "{shape:?}");
        assert!(rows.run(&mut new_pool(), 1, 2) != q[..q_stride], "the control: another row");
    }
}

#[test]
fn blocks_are_copied_in_order() {
    let mut numbers = Numbers(4);
    for aliased in [false, true] {
        let mut pool = Pool::new((3, 2, 24), 16, 7, aliased);
        for layer in 0..3 {
            for head in 0..2 {
                for slot in 0..7 * 16 {
                    let at = pool.key_at(layer, head, slot);
                    for at in [at, at + pool.shape.values_at as usize] {
                        pool.memory[at..at + 24].fill_with(|| to_bf16(numbers.normal()));
                    }
                }
            }
        }
        // Block 5 reads the earlier copy in block 2; the last pair then overwrites block 2.
        let pairs = [0, 2, 2, 5, 6, 2];
        let origin = [0, 1, 6, 3, 4, 0, 6];
        let before = Pool { memory: pool.memory.clone(), shape: pool.shape };
        let call = gk_copy_blocks { pairs: pairs.as_ptr(), kv: pool.of_layer(0), n_pairs: 3 };
        assert_eq!(launch!(copy_blocks, call), 0);
        let is_copied = |from: usize, to: usize| {
            (0..3 * 2 * 16).all(|i| {
                let (layer, head, slot) = (i / 32, i / 16 % 2, i % 16);
                let (from, to) = (from * 16 + slot, to * 16 + slot);
                before.key(layer, head, from) == pool.key(layer, head, to)
                    && before.value(layer, head, from) == pool.value(layer, head, to)
            })
        };
        for (to, &from) in origin.iter().enumerate() {
            assert!(is_copied(from, to), "{to} is not {from}, aliased: {aliased}");
        }
        assert!(!is_copied(2, 5), "the control: pairs in another order");
        let n_nan = |pool: &Pool| pool.memory.iter().filter(|&&x| x == NAN).count();
        assert_eq!(n_nan(&before), n_nan(&pool), "values between blocks");
        let kv = gk_kv { block_stride: 8, ..call.kv };
        assert_eq!(launch!(copy_blocks, gk_copy_blocks { kv, ..call }), BAD_CALL);
    }
}
