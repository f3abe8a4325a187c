//! Flags of `galley run` that have no effect beside `--request`, because the request says the same with a key.

use crate::args::{ModelArgs, RunArgs};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

/// Flags that have an effect beside `--request`, apart from the flags of the model.
const BESIDE: [&str; 8] = [
    "request",
    "drafter",
    "drafter_plugin",
    "plugin_path",
    "suffix_bytes",
    "chat_template",
    "json",
    "stats",
];

/// Flags whose key has another name.
const OTHER_KEYS: [(&str, &str); 4] = [
    ("stop_token_id", "stop_token_ids"),
    ("prompt_file", "prompt"),
    ("prompt_tokens", "prompt"),
    ("chat", "messages"),
];

/// The error about the first flag that was given beside `--request` without an effect. Variables of the environment are
/// meant for calls without a request, and are no error.
pub(super) fn conflict(matches: &ArgMatches) -> Option<String> {
    let ("run", run) = matches.subcommand()? else { return None };
    let is_given = |id: &str| run.value_source(id) == Some(ValueSource::CommandLine);
    if !is_given("request") {
        return None;
    }
    let (flag, key) = flags_with_a_key().into_iter().find(|(flag, _)| is_given(flag))?;
    let flag = flag.replace('_', "-");
    Some(format!("--{flag} has no effect beside --request: write \"{key}\" in the request"))
}

/// The flags, and their keys in a request.
fn flags_with_a_key() -> Vec<(String, String)> {
    let ids = |command: Command| -> Vec<String> {
        command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
    };
    let of_model = ids(ModelArgs::augment_args(Command::new("model")));
    let mut flags = ids(RunArgs::augment_args(Command::new("run")));
    flags.retain(|flag| !of_model.contains(flag) && !BESIDE.contains(&flag.as_str()));
    let key = |flag: &str| {
        let other = OTHER_KEYS.iter().find(|(of, _)| *of == flag);
        other.map_or(flag, |(_, key)| key).to_owned()
    };
    flags.into_iter().map(|flag| (flag.clone(), key(&flag))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flag whose key is unknown to the parser of requests would send its user astray.
    #[test]
    fn every_key_is_one_of_a_request() {
        let flags = flags_with_a_key();
        assert!(flags.len() > 20, "{flags:?}");
        let first_unknown = |key: &str| {
            let request = format!("{{\"{key}\": null, \"zzz\": 1}}");
            galley_api::parse_request(request.as_bytes()).expect_err("zzz is unknown").field
        };
        for (flag, key) in &flags {
            assert_eq!(first_unknown(key).as_deref(), Some("zzz"), "--{flag}");
        }
        assert_eq!(first_unknown("no_such_key").as_deref(), Some("no_such_key"), "control");
    }
}
