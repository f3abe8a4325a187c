//! Flags that the environment sets, and variables that are ignored or refused.

use super::*;
use crate::args::Command as Chosen;
use std::collections::BTreeMap;

/// Parses a command line under the variables of `environment`.
fn read_line(line: &[&str], environment: &[(&str, &str)]) -> Result<Cli, String> {
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let arguments = ["galley"].iter().chain(line).map(OsString::from).collect();
    parse_from(arguments, |name| environment.get(name).map(OsString::from))
        .map_err(|error| error.to_string())
}

fn run(line: &[&str], environment: &[(&str, &str)]) -> Result<crate::args::RunArgs, String> {
    let line: Vec<&str> = ["run", "-m", "x"].iter().chain(line).copied().collect();
    match read_line(&line, environment)?.command {
        Chosen::Run(args) => Ok(args),
        _ => Err("another command".to_owned()),
    }
}

fn bench(line: &[&str], environment: &[(&str, &str)]) -> Result<crate::args::BenchArgs, String> {
    let line: Vec<&str> = ["bench", "-m", "x"].iter().chain(line).copied().collect();
    match read_line(&line, environment)?.command {
        Chosen::Bench(args) => Ok(args),
        _ => Err("another command".to_owned()),
    }
}

/// A value that a flag takes, found by trying.
fn some_value(arg: &Arg) -> &'static str {
    let values = ["1", "16", "0.5", "cpu", "bf16", "equality", "3:1"];
    let fits = |value: &&&str| read(arg, OsString::from(value)).is_ok();
    values.iter().find(fits).expect("one of them fits")
}

#[test]
fn every_flag_has_a_twin_that_its_help_names() {
    let mut n_twins = 0;
    for subcommand in command().get_subcommands() {
        for arg in subcommand.get_arguments().filter(|arg| arg.get_long().is_some()) {
            let flag = arg.get_long().expect("it has one");
            let help = arg.get_help().expect("every flag has help").to_string();
            let Some(twin) = twin(arg) else {
                assert!(ALONE.contains(&flag), "--{flag} has no twin");
                continue;
            };
            assert!(help.ends_with(&format!("[env: {twin}]")), "{help}");
            // The variable sets the flag, and a blank one counts as not set.
            let name = subcommand.get_name();
            let id = arg.get_id().as_str();
            let words = ["galley", name, "-m", "x"];
            let words = match name {
                "pull" => &["galley", name, "x"][..],
                "drafters" => &words[..2],
                _ if flag == "model" => &words[..2],
                _ => &words[..],
            };
            let given = |value: &'static str| {
                let words: Vec<OsString> = words.iter().map(OsString::from).collect();
                let first = command().ignore_errors(true).try_get_matches_from(&words);
                let first = first.expect("it is right but for the model");
                let (_, written) = first.subcommand().expect("a command");
                let variable = |of: &str| (of == twin).then(|| OsString::from(value));
                value_of(arg, written, &variable)
            };
            let value = some_value(arg);
            assert!(given(value).expect("it is right").is_some(), "{name}: {id}");
            for blank in ["", " ", "\r\n"] {
                assert_eq!(given(blank), Ok(None), "{name}: {id}");
            }
            n_twins += 1;
        }
    }
    assert!(n_twins > 60, "{n_twins}");
}

#[test]
fn case_13_booleans_take_the_usual_words() {
    for (value, expected) in [
        ("1", true),
        ("0", false),
        ("true", true),
        ("FALSE", false),
        ("Yes", true),
        ("no", false),
        ("on", true),
        ("off", false),
        (" 1\r", true),
        ("", false),
        (" ", false),
    ] {
        let args = run(&[], &[("GALLEY_IGNORE_EOS", value), ("GALLEY_JSON", value)]);
        let args = args.expect("it is right");
        assert_eq!((args.sampling.ignore_eos, args.json), (expected, expected), "{value:?}");
    }
    let error = run(&[], &[("GALLEY_IGNORE_EOS", "maybe")]).expect_err("no boolean");
    for part in ["GALLEY_IGNORE_EOS", "--ignore-eos", "maybe", "yes"] {
        assert!(error.contains(part), "{error}");
    }
    // Another command's variables are not read.
    assert!(run(&[], &[("GALLEY_SHARED_PROMPT", "maybe")]).is_ok());
}

#[test]
fn case_13_an_empty_variable_is_not_set() {
    let empty = [
        ("GALLEY_SEED", ""),
        ("GALLEY_THREADS", ""),
        ("GALLEY_DTYPE", ""),
        ("GALLEY_DEVICE", " "),
        ("GALLEY_DRAFTER", ""),
        ("GALLEY_STOP", ""),
        ("GALLEY_PLUGIN_PATH", ""),
        ("GALLEY_TEMPERATURE", "\n"),
    ];
    let args = run(&[], &empty).expect("nothing is set");
    assert_eq!((args.sampling.seed, args.model.threads), (None, None));
    assert!(args.draft.drafter.is_empty() && args.sampling.stop.is_empty());
    assert!(args.draft.plugin_path.is_none() && args.sampling.params.temperature == 0.0);
    let bench = bench(&[], &[("GALLEY_BATCH", ""), ("GALLEY_KV_BUDGET", "")]).expect("nothing");
    assert_eq!((bench.batch, bench.kv_budget.len()), (vec![1], 0));
    // The model is required, and an empty variable does not set it.
    let error = read_line(&["run"], &[("GALLEY_MODEL", "")]).expect_err("no model");
    assert!(error.contains("--model"), "{error}");
    let args = read_line(&["run"], &[("GALLEY_MODEL", "here\n")]).expect("a model");
    assert!(matches!(args.command, Chosen::Run(args) if args.model.model == "here"));
}

#[test]
fn the_command_line_counts_before_the_environment() {
    let environment = [("GALLEY_SEED", "5"), ("GALLEY_STOP", "- a, b"), ("GALLEY_BATCH", "2, 3")];
    let args = run(&[], &environment).expect("right");
    assert_eq!((args.sampling.seed, args.sampling.stop), (Some(5), vec!["- a, b".to_owned()]));
    let args = run(&["--seed", "6", "--stop", "x", "--stop", "y"], &environment).expect("right");
    assert_eq!((args.sampling.seed, args.sampling.stop.len()), (Some(6), 2));
    assert_eq!(bench(&["--batch", "7"], &environment).expect("right").batch, [7]);
    assert_eq!(bench(&[], &[("GALLEY_BATCH", "2,3")]).expect("right").batch, [2, 3]);
    // A wrong value in a variable is no error if the command line sets the flag.
    assert!(run(&["--seed", "6"], &[("GALLEY_SEED", "x")]).is_ok());
    // The same holds for flags that exclude each other.
    let args = run(&["--drafter-plugin", "a.so"], &[("GALLEY_DRAFTER", "ngram")]).expect("right");
    assert!(args.draft.drafter.is_empty() && args.draft.drafter_plugin == ["a.so"]);
    let set = [("GALLEY_BENCH_DATASET", "code")];
    assert!(bench(&["--random-tokens"], &set).is_ok());
    assert!(bench(&["--random-tokens", "--dataset", "code"], &[]).is_err());
    let args = bench(&["--dataset", "niah"], &[("GALLEY_RANDOM_TOKENS", "1")]).expect("right");
    assert!(!args.random_tokens);
}

#[test]
fn a_wrong_value_is_named_with_its_variable() {
    for (variable, value, part) in [
        ("GALLEY_THREADS", "many", "whole number"),
        ("GALLEY_SEED", "-1", "invalid digit"),
        ("GALLEY_BLOCK_SIZE", "0", "at least 1"),
        ("GALLEY_DTYPE", "int3", "bf16"),
        ("GALLEY_WEIGHTS", "q5", "native"),
        ("GALLEY_TEMPERATURE", "warm", "invalid float"),
        ("GALLEY_LOGIT_BIAS", "x", "TOKEN_ID:BIAS"),
    ] {
        let error = run(&[], &[(variable, value)]).expect_err("wrong");
        assert!(error.contains(variable) && error.contains(part), "{error}");
        assert!(error.matches(part).count() == 1, "once: {error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let arguments: Vec<OsString> = vec!["galley".into(), "run".into()];
        let bad =
            |name: &str| (name == "GALLEY_MODEL").then(|| OsString::from_vec(vec![b'a', 255]));
        let error = parse_from(arguments, bad).expect_err("not UTF-8").to_string();
        assert!(error.contains("GALLEY_MODEL") && error.contains("UTF-8"), "{error}");
    }
}

#[test]
fn case_12_text_may_begin_with_a_dash() {
    for text in ["- item", "---", "--", "-", "-1", "--json", "-p"] {
        let args = run(&["-p", text, "--stop", text], &[]).expect("it is text");
        assert_eq!(args.prompt.as_deref(), Some(text));
        assert_eq!(args.sampling.stop, [text]);
        let line = ["chat", "-m", "x", "--system", text, "--stop", text];
        let cli = read_line(&line, &[]).expect("it is text");
        assert!(matches!(cli.command, Chosen::Chat(args) if args.system.as_deref() == Some(text)));
    }
    // A flag after the text is still read as a flag.
    assert!(run(&["-p", "- item", "--json"], &[]).expect("right").json);
}

#[test]
fn numbers_that_begin_with_a_dash_are_refused_by_their_flag() {
    for flag in ["--temperature", "--top-p", "--min-p", "--presence-penalty"] {
        assert!(run(&[flag, "-inf"], &[]).is_ok(), "the engine refuses it");
    }
    for flag in ["--max-tokens", "--top-k", "--seed", "--threads", "--n", "--logprobs"] {
        let error = run(&[flag, "-1"], &[]).expect_err("it is negative");
        assert!(error.contains(&format!("'{flag} <")), "{error}");
    }
}

#[test]
fn every_help_has_examples_that_can_be_typed() {
    let check = |command: &Command| {
        let examples = command.get_after_help().expect("examples").to_string().replace("\\\n", " ");
        let lines = examples.lines().filter_map(|line| line.trim().strip_prefix("galley "));
        let mut n_lines = 0;
        for line in lines {
            // Splits the line as a shell would. Each pair of quotes in the examples encloses one whole word.
            let words: Vec<String> = line
                .split('\'')
                .enumerate()
                .flat_map(|(i, part)| match i % 2 {
                    0 => part.split_whitespace().map(str::to_owned).collect(),
                    _ => vec![part.to_owned()],
                })
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if words.last() != Some(&"--help") {
                assert!(read_line(&words, &[]).is_ok(), "{line}");
            }
            n_lines += 1;
        }
        assert!(n_lines > 1, "{}", command.get_name());
    };
    check(&command());
    command().get_subcommands().for_each(check);
    command().debug_assert();
}
