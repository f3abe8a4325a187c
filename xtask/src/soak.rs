//! Random requests on random engines, each compared with itself alone: a program of `galley-tests`, which this builds and
//! runs.

use crate::shell::{cargo, command, run as run_command, target};
use crate::test::model;
use anyhow::{Context, Result};
use clap::Args;
use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

/// What `cargo xtask soak` can be told.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Where all random choices come from; from the clock by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this workload of the seed alone, again and again.
    #[arg(long)]
    workload: Option<u64>,
    /// Run with a fault, sum or verify, which must be found.
    #[arg(long)]
    control: Option<String>,
    /// Without SmolLM2, which is fetched otherwise.
    #[arg(long)]
    tiny: bool,
}

pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    run_command(cargo("build --locked --package galley-tests --bin galley-soak --package galley"))?;
    let model = match args.tiny {
        true => None,
        false => model().inspect_err(|error| eprintln!("{error:#}: tiny models alone")).ok(),
    };
    let mut words = vec![format!("--minutes={}", args.minutes)];
    words.extend(args.seed.map(|seed| format!("--seed={seed}")));
    words.extend(args.workload.map(|number| format!("--workload={number}")));
    words.extend(args.control.as_ref().map(|control| format!("--control={control}")));
    soak(&words, model)
}

/// Runs the program that a build of the tests has left.
pub(crate) fn soak(words: &[String], model: Option<PathBuf>) -> Result<()> {
    let program = target().join("debug").join(format!("galley-soak{EXE_SUFFIX}"));
    let program = program.to_str().context("the target folder's name is not UTF-8")?;
    let mut soak = command(program, words);
    soak.env_remove("GALLEY_TEST_MODEL");
    soak.envs(model.map(|path| ("GALLEY_TEST_MODEL", path)));
    run_command(soak)
}
