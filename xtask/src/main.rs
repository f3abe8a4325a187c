//! Chores of the workspace: `cargo xtask demo | test | data | bindings`.
//!
//! Nothing here is part of Galley. A chore is a list of commands a person could type, run in order,
//! with a heading and the time each took.

mod bindings;
mod data;
mod demo;
mod shell;
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
    /// Fetch the long texts that some tests and benches read.
    Data,
    /// Write the drafter contract's Rust bindings anew from its C header.
    Bindings(bindings::BindingsArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Demo(args) => demo::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Data => data::fetch().map(|folder| println!("{}", folder.display())),
        Chore::Bindings(args) => bindings::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
