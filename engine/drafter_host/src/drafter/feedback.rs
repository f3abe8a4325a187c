//! Feedback: tells a drafter how many tokens of its drafts were accepted.

use std::time::Instant;

use galley_drafter_abi as abi;
use galley_drafter_abi::gd_drafter;

use super::Drafter;
use crate::Verified;
use crate::host::{LentBatch, Phase};

type Callback = unsafe extern "C" fn(*mut gd_drafter, *const abi::gd_verified);

/// The callback of a drafter's feedback table, and the columns of its argument, for reuse.
pub(crate) struct Feedback {
    callback: Callback,
    sequences: Vec<u64>,
    n_proposed: Vec<u32>,
    n_accepted: Vec<u32>,
}

impl Feedback {
    pub(crate) fn new(callback: Callback) -> Self {
        Feedback { callback, sequences: Vec::new(), n_proposed: Vec::new(), n_accepted: Vec::new() }
    }

    fn fill(&mut self, rows: &[Verified]) {
        self.sequences.clear();
        self.n_proposed.clear();
        self.n_accepted.clear();
        self.sequences.extend(rows.iter().map(|row| row.sequence));
        self.n_proposed.extend(rows.iter().map(|row| row.n_proposed));
        self.n_accepted.extend(rows.iter().map(|row| row.n_accepted));
    }
}

impl Drafter {
    /// Tells the drafter the fate of its drafts in one round, if it has a feedback table.
    pub fn feedback(&mut self, rows: &[Verified]) {
        if !self.is_active || self.set_aside.is_some() || rows.is_empty() {
            return;
        }
        let Some(feedback) = &mut self.feedback else { return };
        feedback.fill(rows);
        let verified = abi::gd_verified {
            struct_size: size_of::<abi::gd_verified>(),
            n_rows: u32::try_from(rows.len()).expect("a round has far fewer rows"),
            reserved: 0,
            sequences: feedback.sequences.as_ptr(),
            n_proposed: feedback.n_proposed.as_ptr(),
            n_accepted: feedback.n_accepted.as_ptr(),
        };
        let (callback, plugin) = (feedback.callback, self.plugin);
        let duration = self.host.within(Phase::Feedback, LentBatch::default(), |_| {
            let started = Instant::now();
            // SAFETY: the drafter gave this function, it is not destroyed, and it is active. The
            // columns have one item a row and live until the call returns.
            unsafe { callback(plugin.as_ptr(), &raw const verified) };
            started.elapsed()
        });
        self.refresh_masks();
        self.judge_duration(duration);
    }
}
