//! The Galley binary.

mod args;
mod bench;
mod cache_size;
mod chat;
mod device;
mod drafters;
mod info;
mod load;
mod memory;
mod pull;
mod request;
mod run;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .without_time()
        .with_target(false)
        .init();
    let result = match Cli::parse().command {
        Command::Run(args) => args.draft.at_most_one().and_then(|()| run::run(&args)),
        Command::Chat(args) => args.draft.at_most_one().and_then(|()| chat::chat(&args)),
        Command::Bench(args) => bench::bench(&args),
        Command::Pull(args) => pull::command(&args),
        Command::Info(args) => info::info(&args),
        Command::Drafters(args) => drafters::list(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
