//! Rules that single calls show.

use super::not_alive;
use crate::between::Lending;
use crate::life::Subject;
use crate::observed::Breach;
use crate::rules::Verdict;

/// R04: sizes, and what the host says of `gd_drafter`.
pub(crate) fn sizes(subject: &Subject) -> Verdict {
    let lived = subject.live(Lending::default());
    let has_failed = lived.observed.failure().is_some();
    match (lived.observed.first(Breach::Size), lived.refused) {
        (Some(sentence), _) => Verdict::Fail(sentence.to_owned()),
        // No callback failed, so it is the host that found something.
        (None, Some(error)) if !has_failed => Verdict::Fail(error),
        (None, Some(_)) => not_alive(),
        (None, None) => Verdict::Pass,
    }
}

/// R08.
pub(crate) fn phases(subject: &Subject) -> Verdict {
    broken(subject, Breach::Phase)
}

/// R09.
pub(crate) fn arguments(subject: &Subject) -> Verdict {
    broken(subject, Breach::Argument)
}

/// R10.
pub(crate) fn pushes(subject: &Subject) -> Verdict {
    broken(subject, Breach::Guess)
}

/// R11.
pub(crate) fn statuses(subject: &Subject) -> Verdict {
    broken(subject, Breach::Status)
}

/// R17.
pub(crate) fn bounds(subject: &Subject) -> Verdict {
    broken(subject, Breach::Beyond)
}

/// R22.
pub(crate) fn logs(subject: &Subject) -> Verdict {
    broken(subject, Breach::Log)
}

/// Also in a life that ended early: what broke a rule may have ended it.
fn broken(subject: &Subject, breach: Breach) -> Verdict {
    let lived = subject.live(Lending::default());
    match lived.observed.first(breach) {
        Some(sentence) => Verdict::Fail(sentence.to_owned()),
        None if lived.refused.is_some() => not_alive(),
        None => Verdict::Pass,
    }
}
