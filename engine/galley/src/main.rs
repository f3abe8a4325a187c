//! The Galley binary.

#![deny(clippy::print_stdout, clippy::print_stderr)] // all printing is in console.rs

mod args;
mod bench;
mod calibrate;
mod chat;
mod console;
mod drafters;
mod environment;
mod huge_pages;
mod info;
mod load;
mod numbers;
mod plan;
mod pull;
mod request;
mod resident;
mod run;

use args::{Cli, Command};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    console::show_warnings();
    let cli = match environment::parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match run_command(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has closed the pipe.
        Err(error) if console::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(format_args!("error: {}", console::sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run_command(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => args.draft.at_most_one().and_then(|()| chat::chat(args)),
        Command::Bench(args) => bench::bench(args),
        Command::Calibrate(args) => calibrate::command(args),
        Command::Plan(args) => plan::plan(args),
        Command::Pull(args) => pull::command(args),
        Command::Info(args) => info::info(args),
        Command::Drafters(args) => drafters::list(args),
    }
}

/// Prints the help, or the error in the command line.
fn explain(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    let is_lost = printed.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe);
    if is_lost && !error.use_stderr() {
        console::note("error: cannot write to standard output");
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
