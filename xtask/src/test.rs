//! Everything CI checks, in the order in which it fails fastest.
//!
//! At home a tool or a download that is missing is a remark, and the tests that need it say that
//! they are skipped. In CI (`CI=true`) it is an error: `.ci/run` has installed all of them.

use crate::shell::{cargo, exists, in_ci, run as run_command, stage};
use crate::{data, demo};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo xtask test` can be told.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Passed on to the test runner, such as a filter.
    #[arg(last = true)]
    runner_args: Vec<String>,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    stage("format", || run_command(cargo("fmt --all --check")))?;
    stage("lints", || {
        run_command(cargo("clippy --workspace --all-targets --locked -- -D warnings"))
    })?;
    stage("documentation", || {
        let mut doc = cargo("doc --workspace --no-deps --document-private-items --locked");
        doc.env("RUSTDOCFLAGS", "-D warnings");
        run_command(doc)
    })?;
    stage("dependencies", dependencies)?;
    let texts =
        stage("long texts", || or_remark(data::fetch(), "tests of long texts are skipped"))?;
    let model = stage("model", || or_remark(model(), "tests of a real model are skipped"))?;
    let runs = Runs { texts: texts.as_deref(), model: model.as_deref() };
    stage("examples in the documentation", || {
        run_command(runs.with_data(cargo("test --workspace --doc --locked --quiet")))
    })?;
    stage("tests", || {
        let mut tests = runs.with_data(runner()?);
        tests.args(&args.runner_args);
        run_command(tests)
    })
}

/// Licences, sources and duplicates of dependencies. Advisories are left to `cargo deny check`:
/// their database is fetched from outside the package registries, which CI may not reach.
fn dependencies() -> Result<()> {
    if exists(cargo("deny --version")) {
        return run_command(cargo("deny --locked check licenses bans sources"));
    }
    or_remark(Err(anyhow!("cargo-deny is not installed")), "not checked")
        .map(Option::unwrap_or_default)
}

/// SmolLM2-135M-Instruct: the path in `GALLEY_TEST_MODEL`, or what `galley pull` fetches.
fn model() -> Result<PathBuf> {
    match std::env::var_os("GALLEY_TEST_MODEL") {
        Some(path) => std::path::absolute(path).context("GALLEY_TEST_MODEL"),
        None => {
            demo::pull(cargo("run --quiet --locked --package galley -- pull smollm2-135m-instruct"))
        }
    }
}

fn runner() -> Result<Command> {
    if exists(cargo("nextest --version")) {
        return Ok(cargo("nextest run --workspace --locked --no-fail-fast"));
    }
    if in_ci() {
        bail!("cargo-nextest is not installed");
    }
    eprintln!("cargo-nextest is not installed: cargo test runs the tests, more slowly");
    Ok(cargo("test --workspace --all-targets --locked --no-fail-fast"))
}

/// In CI the error; at home a remark, and nothing.
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

/// What tests find by environment variables.
struct Runs<'a> {
    texts: Option<&'a Path>,
    model: Option<&'a Path>,
}

impl Runs<'_> {
    fn with_data(&self, mut command: Command) -> Command {
        command.envs(self.texts.map(|path| ("GALLEY_TEST_DATA", path)));
        command.envs(self.model.map(|path| ("GALLEY_TEST_MODEL", path)));
        command
    }
}
