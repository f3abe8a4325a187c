//! Answers that are cut and go on: the requests of a workload again, each with a part of its output.

use super::dimensions::{End, Job};
use super::drive::Outcome;
use super::stream::Stream;
use galley_engine::Verify;

/// A request with a part of its output, and the whole output.
pub struct Resumed<'a> {
    /// Number of the original request.
    pub at: usize,
    /// The request.
    pub job: Job,
    whole: &'a Stream,
}

impl Resumed<'_> {
    /// The stream that the request must yield: all of the output, with the log-probabilities of its
    /// own tokens.
    pub fn expected(&self) -> Stream {
        let n_generated = self.job.request.generated.len();
        let mut expected = self.whole.clone();
        let has_logprobs = !expected.logprobs.is_empty();
        expected.logprobs.drain(..if has_logprobs { n_generated } else { 0 });
        expected.top.drain(..n_generated);
        expected
    }
}

/// The requests that can be resumed, each cut at a place that follows from its seed.
pub fn resumed<'a>(jobs: &[Job], outcomes: &'a [Outcome]) -> Vec<Resumed<'a>> {
    let resume = |(at, (job, outcome)): (usize, (&Job, &'a Outcome))| {
        let (request, whole) = (&job.request, &outcome.streams[0]);
        let is_exact = request.n == 1 && request.drafting.verify == Verify::Equality;
        if !is_exact || outcome.is_given_up {
            return None;
        }
        let n_generated = request.seed? as usize % (whole.tokens.len() + 1);
        let generated = whole.tokens[..n_generated].iter().copied();
        let request = request.clone().resume(generated);
        Some(Resumed { at, job: Job { request, after_events: 0, end: End::Own }, whole })
    };
    jobs.iter().zip(outcomes).enumerate().filter_map(resume).collect()
}
