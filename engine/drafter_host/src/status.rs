//! The reason of a call that failed: its status, the error that the drafter logged, and the host's refusal.

use galley_drafter_abi as abi;
use galley_drafter_abi::gd_status;

use crate::LoadError;
use crate::host::Host;

/// The error of a drafter that cannot do an action, such as "be created".
pub(crate) fn refused(host: &Host, action: &'static str, status: gd_status) -> LoadError {
    LoadError::Refused { drafter: host.name().to_owned(), action, reason: reason(host, status) }
}

/// The drafter's logged error and the host's refusal; the name of the status if there is neither.
pub(crate) fn reason(host: &Host, status: gd_status) -> String {
    let mut state = host.state();
    match (state.last_error.take(), state.refusal.take()) {
        (Some(sentence), None) | (None, Some(sentence)) => sentence,
        (Some(sentence), Some(refusal)) if sentence.contains(&refusal) => sentence,
        (Some(sentence), Some(refusal)) => format!("{sentence}: {refusal}"),
        (None, None) => meaning(status),
    }
}

fn meaning(status: gd_status) -> String {
    match status {
        abi::GD_NO_GUESS => "GD_NO_GUESS, where that is no answer".to_owned(),
        abi::GD_UNSUPPORTED => {
            "this host, model or device cannot do it (GD_UNSUPPORTED)".to_owned()
        }
        abi::GD_INVALID => "a bad argument, struct or handle (GD_INVALID)".to_owned(),
        abi::GD_WRONG_PHASE => "a function called where it may not be (GD_WRONG_PHASE)".to_owned(),
        abi::GD_NO_MEMORY => "no memory (GD_NO_MEMORY)".to_owned(),
        abi::GD_PANIC => "it panicked (GD_PANIC)".to_owned(),
        abi::GD_INTERNAL => "an error of its own that it did not log (GD_INTERNAL)".to_owned(),
        other => format!("status {other}"),
    }
}
