//! Rules about the drafter's own tables.

use super::calls::broken;
use super::{about_to, not_alive};
use crate::life::{Subject, tokens};
use crate::observed::Breach;
use crate::target::LIMITS;
use crate::verdict::Verdict;
use galley_drafter_host::{DraftRow, Program, Verified};

/// R23: `get_extension` answers as the header says.
pub(crate) fn answers(subject: &Subject) -> Verdict {
    broken(subject, Breach::Extension)
}

/// R24: tables say their true size and have their functions.
pub(crate) fn tables(subject: &Subject) -> Verdict {
    has_feedback(subject).map_or_else(|skip| skip, |()| broken(subject, Breach::Table))
}

/// R25: feedback in any order, about any sequence, does no harm.
pub(crate) fn any_order(subject: &Subject) -> Verdict {
    if let Err(skip) = has_feedback(subject) {
        return skip;
    }
    let Ok((mut drafter, observed)) = subject.activate() else { return not_alive() };
    let verified = |sequence, n_proposed, n_accepted| Verified { sequence, n_proposed, n_accepted };
    about_to("tell it of sequences that it has never seen");
    drafter.feedback(&[verified(7, 1, 0), verified(u64::MAX, LIMITS.max_draft_length, 1)]);
    about_to("tell it of more rows than a round has");
    let many: Vec<Verified> =
        (0..u64::from(4 * LIMITS.max_rows)).map(|i| verified(i, 1 + i as u32, i as u32)).collect();
    drafter.feedback(&many);
    about_to("tell it of a sequence that has ended");
    let (tokens, mut program) = (tokens(1, 30), Program::default());
    let row = DraftRow { sequence: 1, tokens: &tokens, draft_length: 2 };
    drafter.after_prefill(&[row], &mut program);
    drafter.guess(&[row], &mut program);
    drafter.end(1);
    drafter.feedback(&[verified(1, 2, 2)]);
    about_to("ask it for a guess after all that");
    drafter.guess(&[row], &mut program);
    match observed.lock().failure() {
        Some(failure) => {
            Verdict::Fail(format!("afterwards, {}", super::lives::sentence_of(failure)))
        }
        None => Verdict::Pass,
    }
}

fn has_feedback(subject: &Subject) -> Result<(), Verdict> {
    let Ok((_, observed)) = subject.activate() else { return Err(not_alive()) };
    match observed.lock().has_feedback {
        true => Ok(()),
        false => Err(Verdict::Skip("it has no table for feedback".to_owned())),
    }
}
