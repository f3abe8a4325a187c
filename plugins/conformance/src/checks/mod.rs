//! The checks of the rules.

pub(crate) mod calls;
pub(crate) mod feedback;
pub(crate) mod growth;
pub(crate) mod guesses;
pub(crate) mod hosts;
pub(crate) mod lives;

use crate::interposer::Lending;
use crate::life::{Lived, Subject};
use crate::verdict::{ABOUT, Verdict};

/// Runs a plain life; a skip if anything fails in it.
fn alive(subject: &Subject) -> Result<Lived, Verdict> {
    let lived = subject.live(Lending::default());
    if lived.refused.is_none() && lived.observed.failure().is_none() {
        return Ok(lived);
    }
    Err(not_alive())
}

fn not_alive() -> Verdict {
    Verdict::Skip("a plain life fails: see R03".to_owned())
}

/// Tells the waiting parent process the next action, in case the drafter does not return.
fn about_to(action: &str) {
    println!("{}{}", ABOUT, action.replace('\n', " "));
}
