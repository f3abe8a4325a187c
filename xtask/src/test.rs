//! All checks of CI, cheap checks first.
//!
//! On a developer's machine, a missing tool or download causes a remark, and tests that need it report that they are
//! skipped. In CI (`CI=true`) it is an error, because `.ci/run` has installed all tools.

use crate::dist::{self, DistArgs};
use crate::model::model;
use crate::shell::{FEATURES, cargo, exists, in_ci, run as run_command, stage};
use crate::{bindings, cuda, data, kernels, soak};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use std::process::Command;

/// The arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Arguments for the test runner, such as a filter.
    #[arg(last = true)]
    runner_args: Vec<String>,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("format", || run_command(cargo("fmt --all --check")));
    stages.run("lints", || {
        let clippy = format!("clippy --workspace {FEATURES} --all-targets --locked -- -D warnings");
        run_command(cargo(&clippy))
    });
    stages.run("documentation", || {
        let doc = format!("doc --workspace {FEATURES} --no-deps --document-private-items --locked");
        let mut doc = cargo(&doc);
        // The documentation is for contributors: it includes private items, and links to them are allowed.
        doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        run_command(doc)
    });
    stages.run("dependencies", dependencies);
    stages.run("bindings", || match or_remark(bindings::generate(), "not compared")? {
        Some(fresh) => bindings::compare(&fresh),
        None => Ok(()),
    });
    stages.run("cuda kernels", || match or_remark(cuda::program("nvcc"), "not compiled")? {
        Some(_) => kernels::run(),
        None => Ok(()),
    });
    stages.run("build", || {
        run_command(cargo(&format!("test --workspace {FEATURES} --locked --no-run")))
    });
    let texts = stages.run("long texts", || or_remark(data::fetch(), "some tests are skipped"));
    let model = stages.run("model", || or_remark(model(), "some tests are skipped"));
    let (texts, model) = (texts.flatten(), model.flatten());
    let with_data = |mut command: Command| {
        command.envs(texts.as_ref().map(|path| ("GALLEY_TEST_DATA", path)));
        command.envs(model.as_ref().map(|path| ("GALLEY_TEST_MODEL", path)));
        command
    };
    stages.run("examples in the documentation", || {
        let tests = format!("test --workspace {FEATURES} --doc --locked --quiet");
        run_command(with_data(cargo(&tests)))
    });
    stages.run("tests", || {
        let mut tests = with_data(runner()?);
        tests.args(&args.runner_args);
        run_command(tests)
    });
    // With arguments for the runner, such as a filter, the user wants a quick answer.
    if args.runner_args.is_empty() {
        stages.run("python wheel", || {
            match or_remark(dist::python(), "the wheel is not tested")? {
                Some(()) => dist::run(&DistArgs::checked_wheel()),
                None => Ok(()),
            }
        });
        stages.run("soak", || soak::soak(&["--minutes=1".to_owned()], model.clone()));
    }
    stages.end()
}

/// Runs stages and collects the names of failed stages. The stages after a failed one still run, so that one call
/// reports all failures.
#[derive(Default)]
struct Stages {
    failed: Vec<&'static str>,
}

impl Stages {
    fn run<T>(&mut self, heading: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        match stage(heading, work) {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("{error:#}");
                self.failed.push(heading);
                None
            }
        }
    }

    fn end(self) -> Result<()> {
        if self.failed.is_empty() { Ok(()) } else { bail!("failed: {}", self.failed.join(", ")) }
    }
}

/// Checks licences, sources and duplicates of dependencies. Advisories are left to `cargo deny check`: CI cannot fetch
/// their database, which is outside the package registries.
fn dependencies() -> Result<()> {
    if exists(cargo("deny --version")) {
        return run_command(cargo(
            "deny --locked check --hide-inclusion-graph licenses bans sources",
        ));
    }
    or_remark(Err(anyhow!("cargo-deny is not installed")), "not checked")
        .map(Option::unwrap_or_default)
}

fn runner() -> Result<Command> {
    if exists(cargo("nextest --version")) {
        return Ok(cargo(&format!("nextest run --workspace {FEATURES} --locked --no-fail-fast")));
    }
    if in_ci() {
        bail!("cargo-nextest is not installed");
    }
    eprintln!("cargo-nextest is not installed: cargo test runs the tests, more slowly");
    Ok(cargo(&format!("test --workspace {FEATURES} --all-targets --locked --no-fail-fast")))
}

/// In CI, the error. On a developer's machine, None after a remark.
fn or_remark<T>(result: Result<T>, remark: &str) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if in_ci() => Err(error),
        Err(error) => {
            eprintln!("{error:#}: {remark}");
            Ok(None)
        }
    }
}
