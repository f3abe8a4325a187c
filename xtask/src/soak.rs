//! The soak: random requests on random engines, each compared with the same request run alone. This module builds and
//! runs the program `galley-soak` of `galley-tests`.

use crate::model::model;
use crate::shell::{cargo, command, run as run_command, target};
use anyhow::{Context, Result};
use clap::Args;
use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

/// The arguments of `cargo xtask soak`.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// Minutes to run.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The seed of all random choices; by default taken from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Run only this workload of the seed, again and again.
    #[arg(long)]
    workload: Option<u64>,
    /// Run with a deliberate fault (sum or verify), which the soak must find.
    #[arg(long)]
    control: Option<String>,
    /// Use the tiny models alone: do not fetch SmolLM2.
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

/// Runs the program `galley-soak` of the last build.
pub(crate) fn soak(words: &[String], model: Option<PathBuf>) -> Result<()> {
    let program = target().join("debug").join(format!("galley-soak{EXE_SUFFIX}"));
    let program = program.to_str().context("the target folder's name is not UTF-8")?;
    let mut soak = command(program, words);
    soak.env_remove("GALLEY_TEST_MODEL");
    soak.envs(model.map(|path| ("GALLEY_TEST_MODEL", path)));
    run_command(soak)
}
