//! The rules, in the order in which a drafter meets them.

use crate::checks::{calls, feedback, growth, guesses, hosts, lives};
use crate::life::Subject;
use crate::verdict::Verdict;
use std::fmt;

/// One requirement of the contract.
pub struct Rule {
    /// Its number, which never changes: R01 and so on.
    pub number: u8,
    /// The requirement.
    pub text: &'static str,
    /// None for a rule about loading, which has been checked before any function could run.
    pub(crate) check: Option<fn(&Subject) -> Verdict>,
}

impl Rule {
    /// The rule about the manifest.
    pub const MANIFEST: u8 = 1;
    /// The rule about loading. If loading fails, no later rule can be checked.
    pub const LOADING: u8 = 2;
    /// The rule about a plain life. If the process ends in a plain life, no later rule can be
    /// checked.
    pub const LIVING: u8 = 3;

    /// Checks the rule. The process may crash with the drafter.
    pub fn check(&self, subject: &Subject) -> Verdict {
        self.check.map_or(Verdict::Pass, |check| check(subject))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{:02}", self.number)
    }
}

const fn rule(number: u8, text: &'static str, check: Option<fn(&Subject) -> Verdict>) -> Rule {
    Rule { number, text, check }
}

/// All rules.
pub const RULES: [Rule; 25] = [
    rule(1, "The manifest can be read from the file without running its code, and is right.", None),
    rule(
        2,
        "The library loads by itself, and its entry gives a gd_library of this major version with \
         a create and the file's manifest.",
        None,
    ),
    rule(
        3,
        "With its options as given or by default it is created, on another thread than the rest, \
         activated, asked and destroyed, and no callback fails.",
        Some(lives::plain),
    ),
    rule(
        4,
        "Every struct that it hands over says its true size, gd_drafter reaches over destroy, \
         activate and guess, and reserved fields are 0.",
        Some(calls::sizes),
    ),
    rule(
        5,
        "Any value of any option is accepted, or refused by create or activate with a logged \
         sentence.",
        Some(lives::options),
    ),
    rule(
        6,
        "Texts of options are read by their length; the bytes after a text change nothing.",
        Some(lives::texts),
    ),
    rule(
        7,
        "After deactivate it can be activated again, and makes its handles anew.",
        Some(lives::again),
    ),
    rule(
        8,
        "Host functions are called in the phases and on the thread that their tags allow.",
        Some(calls::phases),
    ),
    rule(
        9,
        "Every handle, index and argument that it passes to the host is valid.",
        Some(calls::arguments),
    ),
    rule(
        10,
        "A pushed guess has at most the row's draft length of tokens, all of the vocabulary.",
        Some(calls::pushes),
    ),
    rule(11, "Callbacks give the statuses that the header has for them.", Some(calls::statuses)),
    rule(
        12,
        "The work that guess enqueues depends on the batch's shape alone, unless it looks at rows or asks \
         to be recorded again.",
        Some(guesses::depends_on_shape),
    ),
    rule(
        13,
        "Without an extension that its manifest needs it fails with a status and a logged \
         sentence, and no worse.",
        Some(hosts::without_needs),
    ),
    rule(
        14,
        "Without an extension that its manifest does not name it works, or is refused with a \
         logged sentence.",
        Some(hosts::without_others),
    ),
    rule(
        15,
        "Whichever host function fails, it returns a status and uses nothing that it did not get.",
        Some(hosts::failing),
    ),
    rule(
        16,
        "A host of a later minor version, with larger structs, makes no difference.",
        Some(hosts::newer),
    ),
    rule(
        17,
        "It looks at no field beyond a struct's struct_size, and writes only structs that it is given \
         to fill.",
        Some(calls::bounds),
    ),
    rule(
        18,
        "Lives leave nothing behind: no memory, no thread, no open file.",
        Some(growth::lives),
    ),
    rule(19, "Sequences that have ended leave nothing behind.", Some(growth::sequences)),
    rule(
        20,
        "guess does not hold up a step: half of its calls take less than a millisecond.",
        Some(guesses::are_quick),
    ),
    rule(
        21,
        "A cost is finite, not negative, and does not fall as the context grows.",
        Some(guesses::costs),
    ),
    rule(22, "Every logged text is UTF-8, at a level of the header.", Some(calls::logs)),
    rule(
        23,
        "get_extension gives NULL for ids that it does not know, and always the same table for an \
         id that it knows.",
        Some(feedback::answers),
    ),
    rule(
        24,
        "Every table that it gives says its true size, and has its functions.",
        Some(feedback::tables),
    ),
    rule(
        25,
        "Feedback may come about any number of sequences, known or ended or never seen.",
        Some(feedback::any_order),
    ),
];
