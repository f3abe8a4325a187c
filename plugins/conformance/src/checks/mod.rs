//! What each rule looks at.

pub(crate) mod calls;
pub(crate) mod growth;
pub(crate) mod guesses;
pub(crate) mod hosts;
pub(crate) mod lives;

use crate::between::Lending;
use crate::life::{Lived, Subject};
use crate::rules::Verdict;

/// A plain life in which nothing fails, or why there is nothing to look at.
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

/// Tells whoever waits for this process what it is about to do, in case it does not return.
fn about_to(what: &str) {
    println!("{}{}", crate::rules::ABOUT, what.replace('\n', " "));
}
