//! Rules that single calls can break.

use super::not_alive;
use crate::interposer::Lending;
use crate::life::Subject;
use crate::observed::Breach;
use crate::verdict::Verdict;

/// R04: sizes of structs, and the host's complaints about `gd_drafter`.
pub(crate) fn sizes(subject: &Subject) -> Verdict {
    let lived = subject.live(Lending::default());
    let has_failed = lived.observed.failure().is_some();
    match (lived.observed.first(Breach::Size), lived.refused) {
        (Some(sentence), _) => Verdict::Fail(sentence.to_owned()),
        // No callback failed, so the error is the host's complaint.
        (None, Some(error)) if !has_failed => Verdict::Fail(error),
        (None, Some(_)) => not_alive(),
        (None, None) => Verdict::Pass,
    }
}

/// R08: host functions are called in the phases and on the thread of their tags.
pub(crate) fn phases(subject: &Subject) -> Verdict {
    broken(subject, Breach::Phase)
}

/// R09: handles, indices and arguments are valid.
pub(crate) fn arguments(subject: &Subject) -> Verdict {
    broken(subject, Breach::Argument)
}

/// R10: pushed drafts fit the row's draft length and the vocabulary.
pub(crate) fn pushes(subject: &Subject) -> Verdict {
    broken(subject, Breach::Guess)
}

/// R11: callbacks return statuses of the header.
pub(crate) fn statuses(subject: &Subject) -> Verdict {
    broken(subject, Breach::Status)
}

/// R17: nothing is read or written beyond `struct_size`.
pub(crate) fn bounds(subject: &Subject) -> Verdict {
    broken(subject, Breach::Beyond)
}

/// R22: log messages are UTF-8, at a level of the header.
pub(crate) fn logs(subject: &Subject) -> Verdict {
    broken(subject, Breach::Log)
}

/// Fails on a breach even in a life that ended early, because the breach may have ended it.
pub(super) fn broken(subject: &Subject, breach: Breach) -> Verdict {
    let lived = subject.live(Lending::default());
    match lived.observed.first(breach) {
        Some(sentence) => Verdict::Fail(sentence.to_owned()),
        None if lived.refused.is_some() => not_alive(),
        None => Verdict::Pass,
    }
}
