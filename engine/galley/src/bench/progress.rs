//! The progress of a benchmark and an estimate of the remaining time, on standard error.

use super::floor::{Floor, Moment};
use crate::args::BenchArgs;
use crate::console::note;
use std::time::{Duration, Instant};

/// Finished and remaining rows. The time of a row is estimated from its floor. The estimates are wrong by a common
/// factor, which the finished rows show.
pub(super) struct BenchProgress {
    started: Instant,
    /// Estimated seconds of each row, in the order of the rows.
    rows: Vec<f64>,
    n_begun: usize,
}

impl BenchProgress {
    /// For every context and batch one row of plain decoding and `n_settings` with a drafter.
    pub(super) fn new(
        args: &BenchArgs,
        n_settings: usize,
        floor: &Floor,
        machine: Option<&Moment>,
    ) -> Self {
        // Only the ratios between the rows count here.
        let machine = machine.unwrap_or(&Moment { read_bytes_s: 1.0, flops_s: 1.0 });
        let mut rows = Vec::new();
        let n_runs = args.repeats.max(1) as f64;
        for &context in &args.context {
            for &batch in &args.batch {
                let decode = floor.decode_s(batch, context, machine) * args.gen_tokens as f64;
                rows.push(n_runs * (floor.prefill_s(batch, context, machine) + decode));
                rows.extend(std::iter::repeat_n(n_runs * 2.0 * decode, n_settings));
            }
        }
        Self { started: Instant::now(), rows, n_begun: 0 }
    }

    /// The next row begins.
    pub(super) fn row(&mut self, batch: usize, context: usize, part: &str) {
        let gone = self.started.elapsed();
        let rest = rest(&self.rows, self.n_begun, gone);
        self.n_begun += 1;
        if self.rows.len() > 1 {
            let rest = rest.map_or(String::new(), |rest| format!(", about {} to go", clock(rest)));
            note(format_args!(
                "[{}/{}] batch {batch}, context {context}: {part} ({}{rest})",
                self.n_begun,
                self.rows.len(),
                clock(gone)
            ));
        }
    }
}

/// The estimated time of the rows from `n_done` on, if the first `n_done` rows took `gone`.
fn rest(rows: &[f64], n_done: usize, gone: Duration) -> Option<Duration> {
    let (done, to_do) = rows.split_at_checked(n_done)?;
    let factor = to_do.iter().sum::<f64>() / done.iter().sum::<f64>();
    Duration::try_from_secs_f64(gone.as_secs_f64() * factor).ok().filter(|_| n_done > 0)
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_guessed_from_what_is_done() {
        let (rows, gone) = ([1.0, 3.0, 8.0], Duration::from_secs(6));
        assert_eq!(rest(&rows, 0, gone), None);
        assert_eq!(rest(&rows, 1, gone), Some(Duration::from_secs(66)));
        assert_eq!(rest(&rows, 2, gone), Some(Duration::from_secs(12)));
        assert_eq!(rest(&rows, 3, gone), Some(Duration::ZERO));
        assert_eq!(rest(&[0.0, 1.0], 1, gone), None, "no guess from nothing");
        assert_eq!(clock(Duration::from_secs(125)), "2:05");
    }
}
