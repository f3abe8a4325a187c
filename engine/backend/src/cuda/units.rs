//! Splits the attention of a batch into units, and decides which unit states are merged.
//!
//! A unit is a group of query rows of one sequence; one thread block per KV head computes it. The
//! units of a launch hold up to 16, 32 or 64 query rows: sequences are sorted into *classes* by
//! their query rows, one launch per class. A unit folds all partitions that its rows see. Where the
//! device would then wait for a few thread blocks with long contexts, each partition has a unit of
//! its own, and the states of these units are merged. Neither choice changes a bit
//! (`galley_kernels.h` explains why): only the speed differs.

use galley_kernels_cu::bindings::{GK_PARTITION, gk_merge, gk_unit};

/// Cached tokens per partition.
pub(super) const PARTITION: usize = GK_PARTITION as usize;

/// Query rows per unit, by class.
const CLASSES: [usize; 3] = [16, 32, 64];

/// Thread blocks that fill a device: two on each of the 132 multiprocessors of an H100.
const FULL_DEVICE: usize = 2 * 132;
/// The unit and merge counts of a launch are multiples of this. Padding is almost free: its thread
/// blocks end at once.
const WORK_STEP: usize = 4;
const NO_UNIT: gk_unit =
    gk_unit { seq: 0, first_query: 0, n_queries: 0, partition: 0, n_partitions: 0, state: -1 };
const NO_MERGE: gk_merge = gk_merge { seq: 0, first_query: 0, n_queries: 0, state: 0, n_states: 0 };
/// Maximum floats in states: 128 MiB. Units beyond it fold.
const MAX_STATES_LEN: usize = 32 << 20;

/// The properties of a sequence that decide its attention work.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeqExtent {
    pub(super) n_rows: usize,
    pub(super) first_position: usize,
    pub(super) tail_start: usize,
    /// Selected tokens, including all tokens of selected blocks.
    pub(super) n_selected: usize,
}

/// The geometry of attention, the same for all sequences of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttentionGeometry {
    pub(super) n_kv_heads: usize,
    /// Query heads per KV head.
    pub(super) group_size: usize,
    pub(super) head_dim: usize,
    /// Maximum query rows of a unit on this device.
    pub(super) max_queries: usize,
    pub(super) window: Option<u32>,
}

impl AttentionGeometry {
    /// Floats in the state of a unit, for all KV heads.
    pub(super) fn state_len(&self, queries_per_unit: usize) -> usize {
        self.n_kv_heads * queries_per_unit * (self.head_dim + 2)
    }

    /// Index of the smallest class that holds all query rows of a sequence, or else of the largest
    /// class on this device.
    fn class(&self, n_queries: usize) -> usize {
        let mut allowed = CLASSES.iter().take_while(|&&held| held <= self.max_queries);
        let last = allowed.clone().count().saturating_sub(1);
        allowed.position(|&held| n_queries <= held).unwrap_or(last)
    }
}

/// The work of one launch.
#[derive(Debug, Default)]
pub(super) struct Class {
    pub(super) queries_per_unit: usize,
    pub(super) units: Vec<gk_unit>,
    pub(super) merges: Vec<gk_merge>,
    pub(super) n_states: usize,
}

impl Class {
    /// Pads units and merges to rounded counts with empty ones, whose thread blocks end at once.
    /// The counts then stay the same for many steps of a growing context.
    pub(super) fn pad(&mut self) {
        let (units, merges) = (self.units.len(), self.merges.len());
        self.units.resize(rounded(units, WORK_STEP), NO_UNIT);
        self.merges.resize(rounded(merges, WORK_STEP), NO_MERGE);
    }
}

/// Rounds `n` up to a multiple of `step` or of a quarter of the next power of two, whichever is
/// larger. 0 stays 0.
pub(super) fn rounded(n: usize, step: usize) -> usize {
    n.next_multiple_of(step.max(n.next_power_of_two() / 4))
}

/// The query rows of a unit, and the partitions that they see.
struct UnitRows {
    seq: usize,
    first_query: usize,
    n_queries: usize,
    n_partitions: usize,
}

/// The launches of a batch, without empty classes.
pub(super) fn classes(spans: &[SeqExtent], heads: &AttentionGeometry) -> Vec<Class> {
    let mut rows: [Vec<UnitRows>; CLASSES.len()] = Default::default();
    for (seq, span) in spans.iter().enumerate() {
        let n_queries = span.n_rows * heads.group_size;
        let class = heads.class(n_queries);
        for first_query in (0..n_queries).step_by(CLASSES[class]) {
            let n_queries = CLASSES[class].min(n_queries - first_query);
            let n_partitions = n_partitions(span, heads, first_query, n_queries);
            rows[class].push(UnitRows { seq, first_query, n_queries, n_partitions });
        }
    }
    let of_class = |(rows, &held)| class(rows, held, heads);
    rows.into_iter().zip(&CLASSES).filter(|(rows, _)| !rows.is_empty()).map(of_class).collect()
}

/// Partitions that these rows see: of the selected tokens, and of the tail, from the earliest
/// position that any row sees to the last row's own position.
fn n_partitions(
    span: &SeqExtent,
    heads: &AttentionGeometry,
    first_query: usize,
    n_queries: usize,
) -> usize {
    let position = |query: usize| span.first_position + query / heads.group_size;
    let (first, last) = (position(first_query), position(first_query + n_queries - 1));
    let outside = heads.window.map_or(0, |window| (first + 1).saturating_sub(window as usize));
    let earliest = span.tail_start.max(outside);
    span.n_selected.div_ceil(PARTITION) + last / PARTITION + 1 - earliest / PARTITION
}

fn class(mut rows: Vec<UnitRows>, queries_per_unit: usize, heads: &AttentionGeometry) -> Class {
    // Longest first: the longest rows are split first, and long folding units start early.
    rows.sort_by_key(|rows| std::cmp::Reverse(rows.n_partitions));
    let all: usize = rows.iter().map(|rows| rows.n_partitions).sum();
    // Partitions per thread block if the whole class were spread over a full device.
    let share = (all * heads.n_kv_heads).div_ceil(FULL_DEVICE);
    let max_states = MAX_STATES_LEN / heads.state_len(queries_per_unit);
    let mut class = Class { queries_per_unit, ..Class::default() };
    let mut folding = Vec::new();
    for rows in rows {
        let unit = gk_unit {
            seq: rows.seq as i32,
            first_query: rows.first_query as i32,
            n_queries: rows.n_queries as i32,
            partition: 0,
            n_partitions: rows.n_partitions as i32,
            state: -1,
        };
        if rows.n_partitions <= share || class.n_states + rows.n_partitions > max_states {
            folding.push(unit);
            continue;
        }
        let first_state = class.n_states as i32;
        class.merges.push(gk_merge {
            seq: unit.seq,
            first_query: unit.first_query,
            n_queries: unit.n_queries,
            state: first_state,
            n_states: unit.n_partitions,
        });
        class.units.extend((0..unit.n_partitions).map(|partition| gk_unit {
            partition,
            n_partitions: 1,
            state: first_state + partition,
            ..unit
        }));
        class.n_states += rows.n_partitions;
    }
    // Folding units come first, because they take longer than units of one partition.
    folding.append(&mut class.units);
    class.units = folding;
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: AttentionGeometry = AttentionGeometry {
        n_kv_heads: 8,
        group_size: 4,
        head_dim: 128,
        max_queries: 64,
        window: None,
    };

    fn span(n_rows: usize, first_position: usize) -> SeqExtent {
        SeqExtent { n_rows, first_position, tail_start: 0, n_selected: 0 }
    }

    /// Checks that every query row meets every partition of its sequence once, and checks states.
    fn check(spans: &[SeqExtent], heads: &AttentionGeometry) -> Vec<Class> {
        let classes = classes(spans, heads);
        let mut covered = vec![std::collections::HashMap::new(); spans.len()];
        for class in &classes {
            let mut states = vec![None; class.n_states];
            for unit in &class.units {
                assert!(unit.n_queries > 0 && unit.n_queries as usize <= class.queries_per_unit);
                for query in unit.first_query..unit.first_query + unit.n_queries {
                    for partition in unit.partition..unit.partition + unit.n_partitions {
                        *covered[unit.seq as usize].entry((query, partition)).or_insert(0) += 1;
                    }
                }
                if unit.state >= 0 {
                    assert_eq!(unit.n_partitions, 1);
                    let rows = (unit.seq, unit.first_query, unit.n_queries, unit.partition);
                    assert!(states[unit.state as usize].replace(rows).is_none(), "a state twice");
                } else {
                    assert_eq!(unit.partition, 0);
                }
            }
            let mut n_merged = 0;
            for merge in &class.merges {
                for i in 0..merge.n_states {
                    let rows = (merge.seq, merge.first_query, merge.n_queries, i);
                    assert_eq!(states[(merge.state + i) as usize], Some(rows), "states in order");
                }
                n_merged += merge.n_states as usize;
            }
            assert_eq!(n_merged, class.n_states, "all states are merged, once");
            let len = class.n_states * heads.state_len(class.queries_per_unit);
            assert!(len <= MAX_STATES_LEN);
        }
        for (span, covered) in spans.iter().zip(&covered) {
            assert!(covered.values().all(|&n| n == 1));
            for query in 0..span.n_rows * heads.group_size {
                // The row's own partitions. Its unit may cover more, because the tail of a
                // neighbour may begin earlier.
                let own = n_partitions(span, heads, query, 1);
                let n = covered.keys().filter(|(q, _)| *q as usize == query).count();
                assert!(n >= own, "query {query} misses partitions: {n} of {own}");
                assert!((0..n as i32).all(|p| covered.contains_key(&(query as i32, p))));
            }
        }
        classes
    }

    fn is_split(classes: &[Class]) -> bool {
        classes.iter().any(|class| !class.merges.is_empty())
    }

    #[test]
    fn every_row_sees_every_partition_once() {
        for group_size in [1, 3, 4, 7, 64] {
            for (head_dim, max_queries) in [(64, 64), (256, 32), (256, 16)] {
                for window in [None, Some(1), Some(700)] {
                    let heads = AttentionGeometry {
                        n_kv_heads: 2,
                        group_size,
                        head_dim,
                        max_queries,
                        window,
                    };
                    let selected = SeqExtent { tail_start: 2048, n_selected: 600, ..span(3, 2100) };
                    let spans = [span(1, 0), span(1, 511), span(1, 512), span(40, 500), selected];
                    let classes = check(&spans, &heads);
                    let largest = classes.iter().map(|class| class.queries_per_unit).max();
                    assert_eq!(largest, Some(max_queries), "40 rows fill the largest class");
                }
            }
        }
        assert!(classes(&[], &HEADS).is_empty());
        assert!(classes(&[span(0, 0)], &HEADS).is_empty());
    }

    #[test]
    fn sequences_are_sorted_into_classes_by_their_query_rows() {
        let classes = check(&[span(1, 9), span(5, 9), span(8, 9), span(9, 9)], &HEADS);
        let sizes: Vec<_> = classes.iter().map(|c| (c.queries_per_unit, c.units.len())).collect();
        assert_eq!(sizes, [(16, 1), (32, 2), (64, 1)]);
    }

    #[test]
    fn numbers_of_units_change_rarely_while_a_context_grows() {
        let mut shapes = Vec::new();
        for position in 0..65_536 {
            let mut classes = classes(&[span(1, position)], &HEADS);
            let units = classes[0].units.len();
            classes[0].pad();
            let padded = &classes[0].units;
            assert!(padded.len() - units < WORK_STEP.max(units.div_ceil(2)), "{units}");
            assert!(padded[units..].iter().all(|unit| unit.n_queries == 0));
            shapes.push((padded.len(), classes[0].merges.len()));
        }
        shapes.dedup();
        assert!(shapes.len() < 24, "{shapes:?}");
        assert_eq!([0, 1, 4, 5, 17, 65].map(|n| rounded(n, 4)), [0, 4, 4, 8, 24, 96]);
    }

    #[test]
    fn long_contexts_are_split_and_full_devices_fold() {
        assert!(!is_split(&check(&[span(1, 400)], &HEADS)), "one partition");
        let one = check(&[span(1, 30_000)], &HEADS);
        assert_eq!((one[0].units.len(), one[0].merges.len()), (59, 1));
        assert!(!is_split(&check(&vec![span(1, 4000); 64], &HEADS)), "a full batch");
        assert!(!is_split(&check(&[span(2048, 0)], &HEADS)), "a prompt");
        // One long context among many short ones: unsplit, it would end long after the rest.
        let mut mixed = vec![span(1, 300); 63];
        mixed.push(span(1, 60_000));
        assert_eq!(check(&mixed, &HEADS)[0].merges.len(), 1);
    }

    #[test]
    fn states_stay_within_their_memory() {
        // 200 partitions for each of many units: more states than fit in memory.
        let classes = check(&[span(512, 100_000)], &AttentionGeometry { n_kv_heads: 1, ..HEADS });
        assert!(is_split(&classes));
        let many = vec![span(16, 500_000); 4];
        let classes = check(&many, &HEADS);
        assert!(classes[0].units.iter().any(|unit| unit.state < 0), "the rest fold");
    }

    #[test]
    fn a_tail_begins_with_what_the_first_row_sees() {
        let heads = AttentionGeometry { group_size: 1, window: Some(100), ..HEADS };
        // Rows 1020..1030 see positions from 921 on: partitions 1 and 2.
        assert_eq!(n_partitions(&span(10, 1020), &heads, 0, 10), 2);
        // Rows from 1124 on see nothing of partition 1.
        assert_eq!(n_partitions(&span(10, 1120), &heads, 4, 6), 1);
        assert_eq!(n_partitions(&span(10, 1120), &heads, 0, 6), 2);
        let selected = SeqExtent { tail_start: 1000, n_selected: 513, ..span(1, 1001) };
        assert_eq!(n_partitions(&selected, &heads, 0, 1), 3);
    }
}
