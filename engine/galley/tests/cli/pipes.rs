//! Standard output and standard error that are files, full disks or closed pipes.
#![cfg(unix)]

use crate::{command, tiny};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};

/// The outputs with a closed pipe.
enum Closed {
    Stdout,
    Stderr,
    Both,
}

/// Runs a command after its `closed` outputs have lost their readers. Returns its status and the text of the
/// other output.
fn run_closed(mut galley: Command, closed: &Closed, input: &[u8]) -> (ExitStatus, String) {
    galley.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut galley = galley.spawn().expect("the binary starts");
    if matches!(closed, Closed::Stdout | Closed::Both) {
        drop(galley.stdout.take());
    }
    if matches!(closed, Closed::Stderr | Closed::Both) {
        drop(galley.stderr.take());
    }
    let mut stdin = galley.stdin.take().expect("a pipe");
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = galley.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// A cache with one model of the hub.
fn cache() -> tempfile::TempDir {
    let cache = tempfile::tempdir().expect("a folder");
    let repository = cache.path().join("models--org--tiny");
    let snapshot = repository.join("snapshots/c0ffee");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    std::fs::create_dir_all(repository.join("refs")).expect("a folder");
    std::fs::write(repository.join("refs/main"), "c0ffee").expect("written");
    for entry in std::fs::read_dir(tiny("smollm2")).expect("a model") {
        let from = entry.expect("an entry").path();
        std::fs::copy(&from, snapshot.join(from.file_name().expect("a name"))).expect("a copy");
    }
    cache
}

#[test]
fn case_24_a_closed_pipe_ends_a_command_quietly() {
    let (model, cache) = (tiny("smollm2"), cache());
    let model = model.to_str().expect("UTF-8");
    let run = ["run", "-m", model, "-p", "text", "--max-tokens", "8", "--ignore-eos"];
    let several = [&run[..], &["--n", "2"]].concat();
    let stats = [&run[..], &["--stats"]].concat();
    let json = [&run[..], &["--json"]].concat();
    let bench = ["bench", "-m", model, "--context", "16", "--gen", "8", "--random-tokens"];
    let bench_json = [&bench[..], &["--json"]].concat();
    for args in [
        &["info", model][..],
        &["info", model, "--json"],
        &["plan", "-m", model, "--gpu", "L4", "--context", "200"],
        &["drafters"],
        &["drafters", "--json"],
        &["pull", "org/tiny"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
        &run,
        &several,
        &stats,
        &json,
        &bench,
        &bench_json,
        &["chat", "-m", model, "--max-tokens", "8"],
    ] {
        for closed in [Closed::Stdout, Closed::Stderr, Closed::Both] {
            let mut galley = command(args);
            galley.env("HF_HUB_CACHE", cache.path()).env("HF_HUB_OFFLINE", "1");
            galley.env_remove("HF_HOME");
            let (status, said) = run_closed(galley, &closed, b"hello\nagain\n");
            assert!(status.success(), "{args:?}: {status}: {said}");
            if matches!(closed, Closed::Stdout) {
                assert_eq!(said, "", "{args:?}");
            }
        }
    }
}

/// A failure has its exit status also if its message cannot be printed.
#[test]
fn case_24_a_failure_behind_a_closed_pipe_has_its_status() {
    for (args, code) in [
        (&["info", "no/such/model"][..], 1),
        (&["run", "-m", "no/such/model", "-p", "x"], 1),
        (&["run", "--no-such-flag"], 2),
        (&["pull", "no such model"], 1),
    ] {
        let (status, said) = run_closed(command(args), &Closed::Both, b"");
        assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let model = tiny("smollm2");
    let model = model.to_str().expect("UTF-8");
    let run = ["run", "-m", model, "-p", "text", "--max-tokens", "2"];
    for args in [&["info", model][..], &["info", model, "--json"], &run, &["--help"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let output = command(args).stdout(full).output().expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!(error.matches("cannot write to standard output").count(), 1, "{error}");
    }
}

#[test]
fn files_get_neither_colours_nor_progress() {
    // The tokenizer's name is unknown, so that a library prints a warning.
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = std::fs::read(tiny("smollm2.gguf")).expect("a model");
    let key = b"tokenizer.ggml.pre";
    let at = bytes.windows(key.len()).position(|window| window == key).expect("the key");
    let at = at + key.len() + "type".len() + "length..".len();
    assert_eq!(&bytes[at..at + 6], b"smollm");
    bytes[at..at + 6].copy_from_slice(b"smollx");
    let model = folder.path().join("model.gguf");
    std::fs::write(&model, bytes).expect("written");
    let model = model.to_str().expect("UTF-8");

    let run = ["run", "-m", model, "-p", "text", "--max-tokens", "2", "--stats"];
    let chat = ["chat", "-m", model, "--max-tokens", "2"];
    let wrong = ["run", "-m", model, "--no-such-flag"];
    for args in [&run[..], &chat, &["info", model], &wrong, &["--help"], &["run", "--help"]] {
        for variables in [
            &[("TERM", "xterm-256color")][..],
            &[("TERM", "dumb")],
            &[("TERM", "xterm"), ("NO_COLOR", "1")],
            &[("TERM", "xterm"), ("CLICOLOR", "1"), ("COLORTERM", "truecolor")],
        ] {
            let mut galley = command(args);
            for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
                galley.env_remove(name);
            }
            galley.envs(variables.iter().copied()).stdin(Stdio::null());
            let output = galley.output().expect("the binary starts");
            let said = [output.stdout, output.stderr].concat();
            assert!(!said.contains(&b'\x1b') && !said.contains(&b'\r'), "{args:?} {variables:?}");
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains("loading") && !said.contains("reading"), "{said}");
            if args.first() != Some(&"--help") && args.get(1) == Some(&"-m") && args != wrong {
                assert!(said.contains("WARN") && said.contains("smollx"), "{said}");
            }
        }
    }
}
