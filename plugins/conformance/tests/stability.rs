//! The ABI only grows: drafters of every frozen version run on today's host, today's drafters
//! report the functions that a shorter host lacks, and nothing in the header moves or disappears.

mod common;
#[path = "stability/header.rs"]
mod header;

use common::{check, compile, failed, here, our_drafters};
use drafter_check::{Callback, Lending, Subject};
use galley_drafter_host::{Outcome, Work};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Frozen versions: 1.0 is the first.
const FROZEN: [&str; 1] = ["1_0"];

fn snapshots() -> PathBuf {
    here().join("../abi/tests/snapshots")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn open(path: &Path) -> Subject {
    let options = [("model", "small"), ("mode", "search")];
    let options: BTreeMap<_, _> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    Subject::open(path, &options).expect("it loads")
}

#[test]
fn a_drafter_of_every_frozen_version_runs_on_todays_host() {
    let folder = tempfile::tempdir().expect("a folder");
    for version in FROZEN {
        let source = snapshots().join(format!("echo_{version}.c"));
        // The include path holds only the frozen header.
        let library = compile(&source, &snapshots(), &["-O2"], version, folder.path());
        let output = check(&[], std::slice::from_ref(&library));
        let (numbers, text) = failed(&output);
        assert!(numbers.is_empty() && output.status.success(), "{text}");
        let lived = open(&library).live(Lending::default());
        assert_eq!(lived.refused, None);
        for asked in lived.asked {
            assert_eq!(asked.outcome, Outcome::Ready, "{version}");
            let is_both = matches!(asked.program.work[..], [Work::Push { .. }, Work::Chain { .. }]);
            assert!(is_both, "{version}: {:?}", asked.program);
        }
    }
}

#[test]
fn headers_only_grow() {
    for version in FROZEN {
        let then = snapshots();
        let now = here().join("../abi");
        let layout_then = read(&then.join(format!("layout_{version}.txt")));
        let complaints = header::layout_growth(&layout_then, &read(&now.join("layout.txt")));
        assert_eq!(complaints, [""; 0], "{version}");
        let header_then = read(&then.join(format!("galley_drafter_{version}.h")));
        let header_now = read(&now.join("include/galley_drafter.h"));
        assert_eq!(header::growth(&header_then, &header_now), [""; 0], "{version}");
    }
}

/// Files of frozen versions must never change, not even to make a test pass.
#[test]
fn snapshots_are_frozen() {
    for (name, sum) in [
        ("galley_drafter_1_0.h", 0x8946_8079_1289_4b7e),
        ("layout_1_0.txt", 0x4252_5cc5_478f_e756),
        ("echo_1_0.c", 0x9be6_49ce_e5fb_c2c7),
    ] {
        let text = read(&snapshots().join(name));
        assert_eq!(fnv1a(&text), sum, "{name} has changed: {:#x}", fnv1a(&text));
    }
}

/// A host whose tables end after any of their fields: a drafter fails with a status and a logged
/// sentence, and calls nothing beyond the end.
#[test]
fn shorter_hosts_are_told_so() {
    for library in our_drafters() {
        let subject = open(&library);
        let name = subject.manifest().name.clone();
        let whole = subject.live(Lending::default());
        assert_eq!(whole.refused, None, "{name}");
        for table_words in 1..4 {
            let lending = Lending { table_words: Some(table_words), ..Lending::default() };
            let lived = subject.live(lending);
            assert_eq!(lived.observed.breaches, [], "{name} with {table_words} words");
            let failure = lived.observed.returned.iter().find(|returned| returned.status < 0);
            let sentence = failure.map(|failure| failure.sentence.as_deref().unwrap_or_default());
            match table_words {
                // No function is left.
                1 => assert!(
                    sentence.is_some_and(|sentence| sentence.contains("lacks the function")),
                    "{name}: {sentence:?}"
                ),
                _ => assert!(sentence != Some(""), "{name} with {table_words} words"),
            }
        }
        // Cuts after host_data and later; without `extension` no drafter can be activated.
        for host_words in 3..6 {
            let lending = Lending { host_words: Some(host_words), ..Lending::default() };
            let lived = subject.live(lending);
            assert_eq!(lived.observed.breaches, [], "{name} with a host of {host_words} words");
            let has_failed = lived.observed.returned.iter().any(|returned| returned.status < 0);
            assert_eq!(has_failed, host_words == 3, "{name} with a host of {host_words} words");
        }
    }
}

/// The negative control: a drafter that relies on today's header calls functions that were cut off.
#[test]
fn a_drafter_that_does_not_look_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = common::build("NONE", folder.path());
    let lived = open(&library).live(Lending { table_words: Some(1), ..Lending::default() });
    assert!(lived.observed.breaches[0].1.contains("beyond its table"), "{:?}", lived.observed);
}

/// Withholds every extension in turn, whether a drafter needs it or not.
#[test]
fn what_is_withheld_is_named() {
    let all = ["models", "views", "observe", "layers", "chain", "tokens", "suffix", "replay"];
    for library in our_drafters() {
        let subject = open(&library);
        let name = &subject.manifest().name;
        for id in all.map(|name| format!("galley.{name}/1")) {
            let lived = subject.live(Lending { withheld: Some(id.clone()), ..Lending::default() });
            let failure = lived.observed.returned.iter().find(|returned| returned.status < 0);
            let is_searching = name == "layer-skip" && id == "galley.replay/1";
            let needs = subject.manifest().needs.contains(&id) || is_searching;
            assert_eq!(failure.is_some(), needs, "{name} without {id}: {failure:?}");
            let Some(failure) = failure else { continue };
            let sentence = failure.sentence.as_deref().unwrap_or_default();
            assert_eq!(failure.status, -1, "{name} without {id}: GD_UNSUPPORTED");
            assert!(sentence.contains(&id), "{name} without {id}: {sentence}");
            assert_ne!(failure.callback, Callback::Create, "{name}: an SDK drafter starts later");
        }
    }
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
