//! Attention over a world in float64, and the error that rounding allows in the kernels.

use crate::world::{Rows, Shape, World, widen};

impl World {
    /// The largest error of `out` against float64, in units of the error that rounding allows: up to 1 is correct.
    ///
    /// A probability is rounded to bf16, with a relative error of at most 2^-8, in numerator and
    /// denominator alike: an output moves by at most 2^-8 of the mean distance of values from it.
    /// The output itself is rounded once more. Sums in f32 may err by 2^-15 of the mean size of values.
    pub(crate) fn worst_error(&self, batch: &[Rows], out: &[Vec<u16>]) -> f64 {
        let Shape { n_heads, head_dim, .. } = self.shape;
        let mut rows = out.iter();
        let mut worst = 0.0_f64;
        for part in batch {
            for position in part.first..part.first + part.n {
                let out = rows.next().expect("an output for every row");
                assert!(out[n_heads * head_dim..].iter().all(|&bits| bits == 0), "padding is zero");
                for head in 0..n_heads {
                    let out = &out[head * head_dim..][..head_dim];
                    worst = worst.max(self.head_error(part, position, head, out));
                }
            }
        }
        worst
    }

    fn head_error(&self, part: &Rows, position: usize, head: usize, out: &[u16]) -> f64 {
        let Shape { head_dim, .. } = self.shape;
        let kv_head = head / self.shape.group();
        let low = if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) };
        let selected = part.selected_positions(&self.shape, kv_head);
        let tail = part.tail_start.max(low)..=position;
        let seen: Vec<_> = selected.into_iter().filter(|&at| at >= low).chain(tail).collect();
        let wide = |bits: &[u16]| bits.iter().map(|&b| f64::from(widen(b))).collect::<Vec<_>>();
        let query = wide(&self.query(part.sequence, position)[head * head_dim..][..head_dim]);
        let key_at = |&at: &usize| self.key_at(part.sequence, kv_head, at);
        let scores = seen.iter().map(key_at).map(|at| {
            let key = wide(&self.pool.bits()[at..at + head_dim]);
            let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
            dot * f64::from(self.shape.scale())
        });
        let scores: Vec<_> = scores.collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<_> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        let values: Vec<_> =
            seen.iter().map(key_at).map(|at| at + self.kv.values_at as usize).collect();
        let mean = |f: &dyn Fn(f64) -> f64, d: usize| -> f64 {
            let value = |&at: &usize| f64::from(widen(self.pool.bits()[at + d]));
            values.iter().zip(&p).map(|(at, p)| p * f(value(at))).sum::<f64>() / sum
        };
        let errors = (0..head_dim).map(|d| {
            let o = mean(&|v| v, d);
            let bound = (mean(&|v| (v - o).abs(), d) * 1.01 + o.abs()) / 256.0
                + mean(&f64::abs, d) / 32768.0;
            let error = (f64::from(widen(out[d])) - o).abs() / bound.max(f64::MIN_POSITIVE);
            if error.is_nan() { f64::INFINITY } else { error }
        });
        errors.fold(0.0, f64::max)
    }
}
