//! Rules about hosts with fewer extensions, larger structs or failing functions.

use super::lives::sentence_of;
use super::{about_to, alive};
use crate::interposer::Lending;
use crate::life::{Lived, Subject};
use crate::observed::{Breach, Callback};
use crate::verdict::Verdict;
use galley_drafter_abi as abi;

/// R13: without a needed extension the drafter fails with a status and a logged message.
pub(crate) fn without_needs(subject: &Subject) -> Verdict {
    if let Err(skip) = alive(subject) {
        return skip;
    }
    let needs = subject.manifest().needs.clone();
    if needs.is_empty() {
        return Verdict::Skip("its manifest needs nothing".to_owned());
    }
    for id in needs {
        let lived = without(subject, &id);
        match lived.observed.failure() {
            None => {
                return Verdict::Fail(format!("it works without {id}, so {id} is no need"));
            }
            Some(failure) if failure.sentence.is_none() => {
                return Verdict::Fail(format!("without {id}, {}", sentence_of(failure)));
            }
            Some(_) => {}
        }
    }
    Verdict::Pass
}

/// R14: without any other extension the drafter works or is refused.
pub(crate) fn without_others(subject: &Subject) -> Verdict {
    if let Err(skip) = alive(subject) {
        return skip;
    }
    let needs = &subject.manifest().needs;
    for id in EXTENSIONS.map(text).into_iter().filter(|id| !needs.contains(id)) {
        let lived = without(subject, &id);
        let Some(failure) = lived.observed.failure() else { continue };
        if failure.sentence.is_none() {
            return Verdict::Fail(format!("without {id}, {}", sentence_of(failure)));
        }
        if !matches!(failure.callback, Callback::Create | Callback::Activate) {
            let why = sentence_of(failure);
            return Verdict::Fail(format!(
                "without {id} it is created and activated, and then {why}: name it in needs, or \
                 refuse earlier"
            ));
        }
    }
    Verdict::Pass
}

/// R15: after a host function has failed, the drafter uses only results that it got.
pub(crate) fn failing(subject: &Subject) -> Verdict {
    let plain = match alive(subject) {
        Ok(lived) => lived.observed,
        Err(skip) => return skip,
    };
    let is_new = |(kind, sentence): &&(Breach, String)| {
        let kinds = [Breach::Argument, Breach::Phase, Breach::Status, Breach::Beyond];
        kinds.contains(kind) && !plain.breaches.iter().any(|(_, known)| known == sentence)
    };
    for function in plain.called.clone() {
        for status in [abi::GD_UNSUPPORTED, abi::GD_NO_MEMORY, abi::GD_INTERNAL] {
            about_to(&format!("let {} fail with {status}", function.name()));
            let lived =
                subject.live(Lending { failing: Some((function, status)), ..Lending::default() });
            if let Some((_, sentence)) = lived.observed.breaches.iter().find(is_new) {
                return Verdict::Fail(format!(
                    "when {} failed with {status}: {sentence}",
                    function.name()
                ));
            }
        }
    }
    Verdict::Pass
}

/// R16: a host of a later minor version makes no difference.
pub(crate) fn newer(subject: &Subject) -> Verdict {
    let lived = match alive(subject) {
        Ok(lived) => lived,
        Err(skip) => return skip,
    };
    about_to("live with a host of a later minor version");
    let other = subject.live(Lending { is_newer: true, ..Lending::default() });
    if let Some(reason) = other.refused {
        return Verdict::Fail(format!("with such a host it does not come to life: {reason}"));
    }
    if let Some(failure) = other.observed.failure() {
        return Verdict::Fail(format!("with such a host {}", sentence_of(failure)));
    }
    if other.described != lived.described || other.asked != lived.asked {
        return Verdict::Fail("with such a host it enqueues something else".to_owned());
    }
    Verdict::Pass
}

fn without(subject: &Subject, id: &str) -> Lived {
    about_to(&format!("live without {id}"));
    subject.live(Lending { withheld: Some(id.to_owned()), ..Lending::default() })
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).trim_end_matches('\0').to_owned()
}

/// Every extension that this host offers.
const EXTENSIONS: [&[u8]; 8] = [
    abi::GD_EXT_MODELS,
    abi::GD_EXT_VIEWS,
    abi::GD_EXT_OBSERVE,
    abi::GD_EXT_LAYERS,
    abi::GD_EXT_CHAIN,
    abi::GD_EXT_TOKENS,
    abi::GD_EXT_SUFFIX,
    abi::GD_EXT_REPLAY,
];
