//! Rules about options and activation.

use super::{about_to, alive, not_alive};
use crate::interposer::Lending;
use crate::life::Subject;
use crate::observed::{Callback, Returned};
use crate::verdict::Verdict;
use galley_drafter_host::Outcome;

/// R03: a plain life succeeds.
pub(crate) fn plain(subject: &Subject) -> Verdict {
    let lived = subject.live(Lending::default());
    if let Some(reason) = lived.refused {
        return Verdict::Fail(format!("{reason}; options are given with --option NAME=VALUE"));
    }
    match lived.observed.failure() {
        Some(failure) => Verdict::Fail(sentence_of(failure)),
        None => Verdict::Pass,
    }
}

/// R05: any value of an option is accepted or refused.
pub(crate) fn options(subject: &Subject) -> Verdict {
    if let Err(skip) = alive(subject) {
        return skip;
    }
    let names: Vec<String> = subject.manifest().options.iter().map(|o| o.name.clone()).collect();
    if names.is_empty() {
        return Verdict::Skip("it has no options".to_owned());
    }
    let long = "9".repeat(1 << 16);
    for name in &names {
        for value in ODD_VALUES.into_iter().chain([long.as_str()]) {
            let shown: String = value.chars().take(40).collect();
            about_to(&format!("set {name} to {shown:?}"));
            let lived = subject.live_with(&[(name, value)], Lending::default());
            let Some(failure) = lived.observed.failure() else { continue };
            let is_refused = matches!(failure.callback, Callback::Create | Callback::Activate);
            if !is_refused {
                let why = sentence_of(failure);
                return Verdict::Fail(format!("{name}={shown:?} was accepted; then {why}"));
            }
            if failure.sentence.is_none() {
                let why = sentence_of(failure);
                return Verdict::Fail(format!("{name}={shown:?}: {why}"));
            }
        }
    }
    Verdict::Pass
}

/// R06: option texts are read by their length.
pub(crate) fn texts(subject: &Subject) -> Verdict {
    let lived = match alive(subject) {
        Ok(lived) => lived,
        Err(skip) => return skip,
    };
    for behind_texts in ["7", "99\0", "x\0"] {
        about_to(&format!("lay {behind_texts:?} behind every text"));
        let other = subject.live(Lending { behind_texts, ..Lending::default() });
        let costs = |costs: &[_]| format!("{costs:?}");
        if other.described != lived.described
            || other.asked != lived.asked
            || other.refused.is_some()
            || costs(&other.costs) != costs(&lived.costs)
        {
            return Verdict::Fail(format!(
                "it is another drafter when {behind_texts:?} lies behind the texts of its options: \
                 they do not end with a NUL"
            ));
        }
    }
    Verdict::Pass
}

/// R07: the drafter can be activated again after deactivate.
pub(crate) fn again(subject: &Subject) -> Verdict {
    let lived = subject.live(Lending::default());
    let activations: Vec<&Returned> = lived
        .observed
        .returned
        .iter()
        .filter(|returned| returned.callback == Callback::Activate)
        .collect();
    match activations[..] {
        [first, second] if first.status == 0 && second.status < 0 => {
            return Verdict::Fail(format!("the second time, {}", sentence_of(second)));
        }
        [first, _] if first.status == 0 => {}
        _ => return not_alive(),
    }
    let failed = |activation| {
        let mut asked = lived.asked.iter().filter(|asked| asked.activation == activation);
        asked.any(|asked| matches!(asked.outcome, Outcome::Failed | Outcome::SetAside))
    };
    if !failed(0) && failed(1) {
        let why = lived.observed.failure().map(sentence_of).unwrap_or_default();
        return Verdict::Fail(format!(
            "guesses fail only after the second activate: {why}; handles made before deactivate are \
             void after it"
        ));
    }
    Verdict::Pass
}

/// A failed callback as a sentence.
pub(crate) fn sentence_of(returned: &Returned) -> String {
    let (name, status) = (returned.callback.name(), returned.status);
    match &returned.sentence {
        Some(sentence) => format!("{name} gave {status}: {sentence}"),
        None => format!("{name} gave {status} and logged no error that says why"),
    }
}

/// Empty texts, signs, numbers at the limits of types, and texts that are not numbers.
const ODD_VALUES: [&str; 16] = [
    "",
    " ",
    "-1",
    "0",
    "1",
    "2",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "1e9",
    "0.5",
    "NaN",
    "1,2,99",
    "nonsense",
    "%s%n",
    "\u{1f980}\0\u{1f980}",
];
