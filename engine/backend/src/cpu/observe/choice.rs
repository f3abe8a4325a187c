//! Selection of the highest scores of one KV head.

use super::ObserveScratch;
use crate::cpu::kept::KeptUnit;
use crate::{Observation, PoolScores};
use std::ops::Range;

/// Parameters of the selection from the sums of one KV head.
pub(super) struct Choice {
    candidates: Range<usize>,
    granularity: usize,
    pub(super) n_selected: usize,
    pool: PoolScores,
}

impl Choice {
    pub(super) fn of(observation: &Observation<'_>) -> Self {
        let Observation { candidates, granularity, n_selected, pool, .. } = observation;
        Choice {
            candidates: candidates.start as usize..candidates.end as usize,
            granularity: *granularity as usize,
            n_selected: *n_selected,
            pool: *pool,
        }
    }

    /// The unit of the sums that the selection reads.
    pub(super) fn unit(&self) -> KeptUnit {
        if self.granularity == 1 { KeptUnit::Token } else { KeptUnit::Group }
    }

    /// Writes the selected ids to `out`, ascending.
    pub(super) fn select(&self, scratch: &mut ObserveScratch, out: &mut [u32]) {
        let ObserveScratch { sums, pooled, order, .. } = scratch;
        let Some(last) = out.len().checked_sub(1) else { return };
        let unit = self.unit().tokens();
        let sums = &sums[self.candidates.start / unit..self.candidates.end / unit];
        let around = |i: usize, width: usize| {
            &sums[i.saturating_sub(width / 2)..(i + width / 2 + 1).min(sums.len())]
        };
        pooled.clear();
        match self.pool {
            PoolScores::None => {
                let per_id = self.granularity / unit;
                pooled.extend(sums.chunks_exact(per_id).map(|c| c.iter().sum::<f32>()));
            }
            PoolScores::Average(width) => pooled.extend(
                (0..sums.len()).map(|i| around(i, width).iter().sum::<f32>() / width as f32),
            ),
            PoolScores::Max(width) => pooled.extend(
                (0..sums.len()).map(|i| around(i, width).iter().copied().fold(0.0, f32::max)),
            ),
        }
        order.clear();
        order.extend(0..pooled.len() as u32);
        order.select_nth_unstable_by(last, |&a, &b| {
            pooled[b as usize].total_cmp(&pooled[a as usize]).then(a.cmp(&b))
        });
        let first = (self.candidates.start / self.granularity) as u32;
        for (to, id) in out.iter_mut().zip(order) {
            *to = first + *id;
        }
        out.sort_unstable();
    }
}
