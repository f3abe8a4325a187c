//! Times of forwards on the running machine: tables that a calibration fills.
//!
//! A forward takes the time of everything that depends on its rows (linears, norms, head, sampling), and of attention,
//! sequence by sequence. On a CPU the first is a staircase, since kernels work on tiles of rows; a table by rows holds it
//! as it is. Attention reads the KV of a sequence once for all of its rows, so that its time grows with the cached tokens,
//! and with the rows as soon as arithmetic takes longer than reading.

use serde::{Deserialize, Serialize};

/// One measured forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredForward {
    /// Sequences of the batch.
    pub n_sequences: u32,
    /// Rows of each sequence.
    pub rows_each: u32,
    /// Cached tokens that each sequence attends to.
    pub kv_tokens_each: u32,
    /// Time of the forward and of sampling a token for each row, in ns.
    pub ns: f64,
}

/// Times of a model's forwards by rows and cached tokens, in ns. All times grow with rows and tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Points", into = "Points")]
pub struct CostTable {
    points: Points,
    /// The times of small numbers of rows, so that a choice looks them up: index 0 is no row.
    rows_ns: Vec<f64>,
    kv_token_ns: Vec<f64>,
}

/// The measured times of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Points {
    /// Time without attention to cached tokens, by the rows of the batch: ascending, at least one point.
    by_rows: Vec<Point>,
    /// Time of attention for one cached token of one sequence, by the rows of that sequence.
    per_kv_token: Vec<Point>,
}

/// Rows of a batch, and of a sequence, whose times are looked up.
const MOST_ROWS: u32 = 1024;
const MOST_ROWS_EACH: u32 = 32;

/// The time for a number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    rows: u32,
    ns: f64,
}

impl CostTable {
    /// The table of measured forwards. Forwards with at most `short_tokens` cached tokens a sequence give the times by
    /// rows; longer ones give the times of attention, less the time of their rows. None without both.
    pub fn fit(measured: &[MeasuredForward], short_tokens: u32) -> Option<CostTable> {
        let is_short = |m: &&MeasuredForward| m.kv_tokens_each <= short_tokens;
        let short = measured.iter().filter(is_short);
        let by_rows = rising(short.map(|m| Point { rows: m.n_sequences * m.rows_each, ns: m.ns }));
        if by_rows.is_empty() {
            return None;
        }
        let long = measured.iter().filter(|m| !is_short(m)).map(|m| {
            let attention_ns = m.ns - at(&by_rows, m.n_sequences * m.rows_each);
            let kv_tokens = f64::from(m.n_sequences) * f64::from(m.kv_tokens_each);
            Point { rows: m.rows_each, ns: attention_ns.max(0.0) / kv_tokens }
        });
        let per_kv_token = rising(long);
        Points { by_rows, per_kv_token }.try_into().ok()
    }

    /// A table by arithmetic, for a machine that was not measured: weights and KV are read at `bytes_per_s`, products run
    /// at `flop_per_s`.
    pub fn analytic(
        weight_bytes: f64,
        flop_per_row: f64,
        kv_bytes_per_token: f64,
        bytes_per_s: f64,
        flop_per_s: f64,
    ) -> CostTable {
        let ns_of = |rows: u32| {
            let reading = weight_bytes / bytes_per_s;
            (reading + f64::from(rows) * flop_per_row / flop_per_s) * 1e9
        };
        let by_rows = [1, 512].map(|rows| Point { rows, ns: ns_of(rows) }).into();
        let per_kv_token = vec![Point { rows: 1, ns: kv_bytes_per_token / bytes_per_s * 1e9 }];
        CostTable::of(Points { by_rows, per_kv_token })
    }

    /// The measured times without attention to cached tokens: rows of the batch, and ns.
    pub fn by_rows(&self) -> impl Iterator<Item = (u32, f64)> {
        self.points.by_rows.iter().map(|point| (point.rows, point.ns))
    }

    /// The measured times of attention to one cached token: rows of its sequence, and ns.
    pub fn per_kv_token(&self) -> impl Iterator<Item = (u32, f64)> {
        self.points.per_kv_token.iter().map(|point| (point.rows, point.ns))
    }

    fn of(points: Points) -> CostTable {
        let dense = |points: &[Point], most: u32| {
            let times = (1..=most).map(|rows| at(points, rows));
            std::iter::once(0.0).chain(times).collect()
        };
        CostTable {
            rows_ns: dense(&points.by_rows, MOST_ROWS),
            kv_token_ns: dense(&points.per_kv_token, MOST_ROWS_EACH),
            points,
        }
    }

    /// Time of everything but attention in a forward of `rows` rows, in ns. 0 without rows.
    pub fn rows_ns(&self, rows: u32) -> f64 {
        self.rows_ns.get(rows as usize).copied().unwrap_or_else(|| at(&self.points.by_rows, rows))
    }

    /// Time of attention of one sequence with `rows` rows to `kv_tokens` cached tokens, in ns.
    pub fn attention_ns(&self, rows: u32, kv_tokens: u32) -> f64 {
        let looked_up = self.kv_token_ns.get(rows as usize).copied();
        let ns = looked_up.unwrap_or_else(|| at(&self.points.per_kv_token, rows));
        ns * f64::from(kv_tokens)
    }

    /// The least time that a further row takes on average, in ns, when rows are added to `rows`: a staircase has free rows
    /// between two steps, but not many of them.
    pub fn least_row_ns(&self, rows: u32) -> f64 {
        let now = self.rows_ns(rows);
        let further = [1, 2, 4, 8, 16, 32, 64, 128, 256].into_iter();
        let slopes = further.map(|n| (self.rows_ns(rows + n) - now) / f64::from(n));
        slopes.fold(f64::INFINITY, f64::min)
    }
}

impl TryFrom<Points> for CostTable {
    type Error = &'static str;

    /// The table of points in order, with times that are finite and never fall: a file may hold others.
    fn try_from(points: Points) -> Result<Self, Self::Error> {
        let is_rising = |points: &[Point]| {
            let mut pairs = points.windows(2);
            !points.is_empty()
                && points.iter().all(|point| point.ns.is_finite() && point.ns >= 0.0)
                && pairs.all(|p| p[0].rows < p[1].rows && p[0].ns <= p[1].ns)
        };
        match is_rising(&points.by_rows) && is_rising(&points.per_kv_token) {
            true => Ok(CostTable::of(points)),
            false => Err("times of forwards are missing, out of order or not finite"),
        }
    }
}

impl From<CostTable> for Points {
    fn from(table: CostTable) -> Self {
        table.points
    }
}

/// Points in ascending order of rows, one a number of rows, with times that never fall: a smaller time at more rows is
/// noise of the measurement.
fn rising(points: impl Iterator<Item = Point>) -> Vec<Point> {
    let mut points: Vec<Point> = points.collect();
    points.sort_by(|a, b| a.rows.cmp(&b.rows).then(a.ns.total_cmp(&b.ns)));
    points.dedup_by_key(|point| point.rows);
    let mut least = 0.0;
    for point in &mut points {
        least = f64::max(least, point.ns);
        point.ns = least;
    }
    points
}

/// The time at `rows`: between two points in proportion, before the first point its time, after the last one at the
/// slope from the origin, or at the slope of the last two points if that is greater.
fn at(points: &[Point], rows: u32) -> f64 {
    let next = points.partition_point(|point| point.rows < rows);
    match (next.checked_sub(1).map(|before| points[before]), points.get(next)) {
        (None, Some(first)) => first.ns,
        (Some(a), Some(b)) => {
            a.ns + (b.ns - a.ns) * f64::from(rows - a.rows) / f64::from(b.rows - a.rows)
        }
        (Some(last), None) => last.ns + slope(points) * f64::from(rows - last.rows),
        (None, None) => 0.0,
    }
}

/// ns for a further row after the last point.
fn slope(points: &[Point]) -> f64 {
    match points {
        [.., a, b] => (b.ns - a.ns) / f64::from(b.rows - a.rows),
        // A single point says nothing about further rows: they are taken to be free.
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(n_sequences: u32, rows_each: u32, kv_tokens_each: u32, ns: f64) -> MeasuredForward {
        MeasuredForward { n_sequences, rows_each, kv_tokens_each, ns }
    }

    #[test]
    fn a_table_gives_back_the_forwards_that_it_was_fitted_to() {
        let ns = |n: u32, rows: u32, kv: u32| {
            let tiles = f64::from((n * rows).div_ceil(6));
            1e6 + 2e5 * tiles + f64::from(n) * f64::from(kv) * (20.0 + 3.0 * f64::from(rows))
        };
        let mut all = Vec::new();
        for rows in [1, 6, 7, 12, 13, 18] {
            all.push(measured(rows, 1, 0, ns(rows, 1, 0)));
        }
        for rows_each in [1, 2, 3] {
            all.push(measured(6, rows_each, 4000, ns(6, rows_each, 4000)));
        }
        let table = CostTable::fit(&all, 16).expect("short and long forwards");
        for (rows, kv) in [(1, 4000), (2, 100), (3, 8000)] {
            let told = table.rows_ns(6 * rows) + 6.0 * table.attention_ns(rows, kv);
            let error = told / ns(6, rows, kv) - 1.0;
            assert!(error.abs() < 1e-9, "{rows} {kv}: {error}");
        }
        assert!(CostTable::fit(&all[..6], 16).is_none(), "no long forward");
        assert!(CostTable::fit(&all[6..], 16).is_none(), "no short forward");
    }

    #[test]
    fn times_never_fall_with_rows() {
        let noisy = [(1, 5.0), (2, 4.0), (4, 9.0), (8, 8.5)];
        let points = rising(noisy.into_iter().map(|(rows, ns)| Point { rows, ns }));
        let times: Vec<f64> = (1..20).map(|rows| at(&points, rows)).collect();
        assert!(times.is_sorted(), "{times:?}");
        let raw: Vec<Point> = noisy.map(|(rows, ns)| Point { rows, ns }).into();
        let times: Vec<f64> = (1..20).map(|rows| at(&raw, rows)).collect();
        assert!(!times.is_sorted(), "the noise is in the points");
    }
}
