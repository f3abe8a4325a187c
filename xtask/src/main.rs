//! Chores of the workspace: `cargo xtask demo | test | soak | data | bindings | cuda | kernels`.
//!
//! Nothing here is part of Galley. A chore is a list of commands a person could type, run in order,
//! with a heading and the time each took.

mod bindings;
mod cuda;
mod data;
mod demo;
mod kernels;
mod shell;
mod soak;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Chores of the Galley workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build Galley, fetch a small model, read a long text and write on.
    Demo(demo::DemoArgs),
    /// Everything CI checks: format, lints, docs, dependencies, tests.
    Test(test::TestArgs),
    /// Random requests and drafters on random engines, each compared bit for bit with itself run alone and plain.
    Soak(soak::SoakArgs),
    /// Fetch the long texts that some tests and benches read.
    Data,
    /// Write Rust bindings of the C headers (drafters, kernels) anew.
    Bindings(bindings::BindingsArgs),
    /// Install nvcc, CUDA's compiler, below the target folder.
    Cuda,
    /// Compile the CUDA kernels and check what can be checked without a GPU; needs nvcc.
    Kernels,
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Demo(args) => demo::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Soak(args) => soak::run(&args),
        Chore::Data => data::fetch().map(|folder| println!("{}", folder.display())),
        Chore::Bindings(args) => bindings::run(&args),
        Chore::Cuda => cuda::run(),
        Chore::Kernels => kernels::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
