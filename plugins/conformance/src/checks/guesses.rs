//! Rules about the content of drafts and about their cost.

use super::{alive, not_alive};
use crate::life::{GuessCall, Subject, tokens};
use crate::observed::Callback;
use crate::target::LIMITS;
use crate::verdict::Verdict;
use galley_drafter_host::{DraftRow, Program};
use std::time::Duration;

/// R12: the enqueued work depends on the batch's shape alone.
pub(crate) fn depends_on_shape(subject: &Subject) -> Verdict {
    let lived = match alive(subject) {
        Ok(lived) => lived,
        Err(skip) => return skip,
    };
    let asked: Vec<&GuessCall> = lived.asked.iter().filter(|asked| asked.is_recordable).collect();
    if asked.is_empty() {
        return Verdict::Skip("it looks at rows, or asks to be recorded again, every time".into());
    }
    for (i, call) in asked.iter().enumerate() {
        let same =
            |later: &&&GuessCall| later.shape == call.shape && later.activation == call.activation;
        if let Some(later) = asked[i..].iter().find(|later| {
            same(later) && (later.outcome, &later.program) != (call.outcome, &call.program)
        }) {
            let (n_rows, draft_length) = call.shape;
            return Verdict::Fail(format!(
                "for {n_rows} rows and a draft length of {draft_length} it enqueued {:?} {:?}, and \
                 another time {:?} {:?}",
                call.outcome, call.program.work, later.outcome, later.program.work
            ));
        }
    }
    Verdict::Pass
}

/// R20: `guess` is quick.
pub(crate) fn are_quick(subject: &Subject) -> Verdict {
    let Ok((mut drafter, observed)) = subject.activate() else {
        return not_alive();
    };
    let texts: Vec<Vec<u32>> = (0..LIMITS.max_rows as usize).map(|i| tokens(i, 2000)).collect();
    let rows: Vec<DraftRow<'_>> = (0..)
        .zip(&texts)
        .map(|(sequence, tokens)| DraftRow {
            sequence,
            tokens,
            draft_length: LIMITS.max_draft_length,
        })
        .collect();
    let mut program = Program::default();
    for _ in 0..N_TIMED {
        drafter.guess(&rows, &mut program);
    }
    let mut times = observed.lock().guesses.clone();
    times.sort();
    let Some(&median) = times.get(times.len() / 2) else {
        return Verdict::Skip("it was never asked".to_owned());
    };
    if median < QUICK {
        Verdict::Pass
    } else {
        Verdict::Fail(format!("half of its calls took {median:?} or more: it may only enqueue"))
    }
}

/// R21: costs are finite and do not fall as the context grows.
pub(crate) fn costs(subject: &Subject) -> Verdict {
    let lived = match alive(subject) {
        Ok(lived) => lived,
        Err(skip) => return skip,
    };
    let statuses = lived.observed.returned.iter().filter(|r| r.callback == Callback::Cost);
    let statuses: Vec<i32> = statuses.map(|returned| returned.status).collect();
    if statuses.is_empty() {
        return Verdict::Skip("it has no cost: the host takes that of the target".to_owned());
    }
    let mut before: Option<(u32, u64, f64)> = None;
    for (&(context, budget, cost), status) in lived.costs.iter().zip(statuses) {
        let at = format!("at {context} tokens under a budget of {budget}");
        let Some(cost) = cost else {
            return Verdict::Fail(format!("{at} cost gave {status}, or no finite amount"));
        };
        let falls = before.is_some_and(|(same, shorter, kv)| {
            same == budget && shorter < context && cost.kv_tokens_read < kv
        });
        if falls {
            return Verdict::Fail(format!("{at} a guess reads less than at fewer tokens"));
        }
        before = Some((budget, context, cost.kv_tokens_read));
    }
    Verdict::Pass
}

const N_TIMED: usize = 200;

/// Describing work takes microseconds; this limit leaves room for a busy machine.
const QUICK: Duration = Duration::from_millis(1);
