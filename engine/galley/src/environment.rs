//! The command line's twins in the environment: `--max-tokens` and `GALLEY_MAX_TOKENS`.
//!
//! The command line has priority over the environment, and the environment over the default. An empty variable counts
//! as not set. `--prompt`, `--prompt-file` and `--request` have no twin: the prompt belongs to a single call of the command.

mod beside_request;

use crate::args::Cli;
use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Flags without a twin.
const ALONE: [&str; 3] = ["prompt", "prompt-file", "request"];

/// Twins with a name of their own: the flag's name alone would not show that the variable is for benchmarks.
const OTHER_NAMES: [(&str, &str); 2] =
    [("dataset", "GALLEY_BENCH_DATASET"), ("data", "GALLEY_TEST_DATA")];

/// Flags that exclude each other: if the command line has one flag of a group, the variables of the group are ignored.
const RIVALS: [&[&str]; 3] = [
    &["drafter", "drafter_plugin"],
    &["dataset", "random_tokens", "shared_prompt"],
    &["gpu", "bandwidth_gb_s", "tflops"],
];

/// Reads the arguments and the environment of the process.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    parse_from(std::env::args_os().collect(), |name| std::env::var_os(name))
}

fn parse_from(
    arguments: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    // The first reading only finds the command and the flags that are given; the second one reports errors.
    let first = command.clone().ignore_errors(true).try_get_matches_from(&arguments);
    if let Some((name, written)) = first.as_ref().ok().and_then(ArgMatches::subcommand) {
        let mut wrong = None;
        command = command.mut_subcommand(name, |subcommand| {
            subcommand.mut_args(|arg| match value_of(&arg, written, &variable) {
                Ok(None) => arg,
                // clap needs a default that lives as long as the process: the value is leaked.
                Ok(Some(value)) => {
                    arg.required(false).default_value(&*Box::leak(value.into_boxed_os_str()))
                }
                Err(reason) => {
                    wrong.get_or_insert(reason);
                    arg
                }
            })
        });
        if let Some(reason) = wrong {
            return Err(command.error(ErrorKind::ValueValidation, reason));
        }
    }
    let matches = command.clone().try_get_matches_from(arguments)?;
    if let Some(reason) = beside_request::conflict(&matches) {
        return Err(command.error(ErrorKind::ArgumentConflict, reason));
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command line, with twins named in its help.
fn command() -> Command {
    Cli::command().mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| {
            let arg = with_dashes(arg);
            let Some(twin) = twin(&arg) else { return arg };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [env: {twin}]"))
        })
    })
}

/// Lets a flag take a value that begins with a dash, so that the flag itself accepts or refuses the value: `-1` may be
/// out of range, and clap does not read `-inf` as a number.
fn with_dashes(arg: Arg) -> Arg {
    let is = |types: &[TypeId]| types.iter().any(|id| arg.get_value_parser().type_id() == *id);
    let is_real = is(&[TypeId::of::<f32>(), TypeId::of::<f64>(), TypeId::of::<(u32, f32)>()]);
    match arg.get_action() {
        ArgAction::Set | ArgAction::Append if is_real => arg.allow_hyphen_values(true),
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => {
            arg.allow_negative_numbers(true)
        }
        _ => arg,
    }
}

/// The name of a flag's twin.
fn twin(arg: &Arg) -> Option<String> {
    let flag = arg.get_long().filter(|flag| !ALONE.contains(flag))?;
    let other = OTHER_NAMES.iter().find(|(of, _)| *of == flag);
    Some(other.map_or_else(
        || format!("GALLEY_{}", flag.to_uppercase().replace('-', "_")),
        |(_, name)| (*name).to_owned(),
    ))
}

/// The value of a flag's variable, in the form of the command line; an error names the variable.
fn value_of(
    arg: &Arg,
    written: &ArgMatches,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<OsString>, String> {
    let Some((twin, flag)) = twin(arg).zip(arg.get_long()) else { return Ok(None) };
    let is_written = |id: &str| {
        let is_known = written.ids().any(|known| known.as_str() == id);
        is_known && written.value_source(id) == Some(ValueSource::CommandLine)
    };
    let id = arg.get_id().as_str();
    let rivals = RIVALS.iter().find(|rivals| rivals.contains(&id)).copied().unwrap_or_default();
    if is_written(id) || rivals.iter().any(|rival| is_written(rival)) {
        return Ok(None);
    }
    let is_blank = |value: &OsString| value.to_str().is_some_and(|text| text.trim().is_empty());
    let Some(value) = variable(&twin).filter(|value| !is_blank(value)) else { return Ok(None) };
    read(arg, value.clone())
        .map(Some)
        .map_err(|reason| format!("{twin} (--{flag}) has the value {value:?}: {reason}"))
}

/// A value in the form of the command line, or the reason why the flag refuses it.
fn read(arg: &Arg, value: OsString) -> Result<OsString, String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let word = boolean(&value).ok_or("1, 0, true, false, yes, no, on or off is needed")?;
        return Ok(word.to_string().into());
    }
    let type_id = arg.get_value_parser().type_id();
    let is_path = type_id == TypeId::of::<PathBuf>() || type_id == TypeId::of::<OsString>();
    let is_prose = type_id == TypeId::of::<String>() && arg.is_allow_hyphen_values_set();
    let value = match value.to_str() {
        Some(text) if !is_path && !is_prose => text.trim().into(),
        None if !is_path => return Err("it is not UTF-8".to_owned()),
        _ => value,
    };
    try_out(arg.get_value_parser(), arg.get_value_delimiter(), &value)?;
    Ok(value)
}

fn boolean(value: &OsStr) -> Option<bool> {
    match value.to_str()?.trim().to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "t" | "y" => Some(true),
        "0" | "false" | "no" | "off" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// Parses a value as a command with only this flag would.
fn try_out(parser: &ValueParser, delimiter: Option<char>, value: &OsStr) -> Result<(), String> {
    let mut arg = Arg::new("value").long("value").action(ArgAction::Append);
    arg = arg.value_parser(parser.clone());
    if let Some(delimiter) = delimiter {
        arg = arg.value_delimiter(delimiter);
    }
    let mut argument = OsString::from("--value=");
    argument.push(value);
    let read = Command::new("galley").arg(arg).try_get_matches_from(["galley".into(), argument]);
    match read {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.source() {
            Some(reason) => reason.to_string(),
            None => "it cannot be read".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
