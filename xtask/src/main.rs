//! Chores of the workspace: `cargo xtask demo | test | acceptance | soak | data | bindings | cuda | kernels | dist`.
//!
//! No code here is part of Galley. A chore is a list of commands that a person could type. It runs them in order, and
//! prints a heading and the time of each.

mod acceptance;
mod bindings;
mod cuda;
mod data;
mod demo;
mod dist;
mod kernels;
mod model;
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
    /// Build Galley, fetch a small model, and continue a long text with and without drafting.
    Demo(demo::DemoArgs),
    /// Run all checks of CI: format, lints, docs, dependencies, tests.
    Test(test::TestArgs),
    /// Run checks that take too long for CI, or need programs that CI lacks.
    Acceptance(acceptance::AcceptanceArgs),
    /// Run random requests and drafters on random engines, and compare each with a plain run of the request alone.
    Soak(soak::SoakArgs),
    /// Fetch the long texts that some tests and benches read.
    Data,
    /// Generate the Rust bindings of the C headers (drafters, kernels).
    Bindings(bindings::BindingsArgs),
    /// Install nvcc, CUDA's compiler, below the target folder.
    Cuda,
    /// Build packages: a tar file, a Python wheel, a Debian package.
    Dist(dist::DistArgs),
    /// Compile the CUDA kernels and check them as far as possible without a GPU; needs nvcc.
    Kernels,
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Demo(args) => demo::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Acceptance(args) => acceptance::run(&args),
        Chore::Soak(args) => soak::run(&args),
        Chore::Data => data::fetch().map(|folder| println!("{}", folder.display())),
        Chore::Bindings(args) => bindings::run(&args),
        Chore::Cuda => cuda::run(),
        Chore::Dist(args) => dist::run(&args),
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
