//! The binary as a user runs it: its output and its error messages.

#[path = "cli/chat.rs"]
mod chat;
#[path = "cli/drafters.rs"]
mod drafters;
#[path = "cli/environment.rs"]
mod environment;
#[path = "cli/info.rs"]
mod info;
#[path = "cli/pipes.rs"]
mod pipes;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/requests.rs"]
mod requests;
#[path = "cli/settings.rs"]
mod settings;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(name)
}

fn galley(args: &[&str]) -> Output {
    command(args).output().expect("the binary starts")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    // Variables of the machine that runs the tests must not reach the binary.
    for (name, _) in std::env::vars() {
        if name.starts_with("GALLEY_") {
            command.env_remove(name);
        }
    }
    // A choice depends on the clock: tests of counts name their drafter.
    command.env("GALLEY_DRAFTER", "none").args(args);
    command
}

/// A copy of a tiny model with another chat template.
fn with_template(name: &str, template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(tiny(name)).expect("a model") {
        let from = entry.expect("an entry").path();
        std::fs::copy(&from, folder.path().join(from.file_name().expect("a name")))
            .expect("a copy");
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
    folder
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Runs a command that must fail without a panic and with an error that has all of `parts`.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = galley(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{args:?} was accepted");
    assert!(!error.contains("panicked"), "{error}");
    for part in parts {
        assert!(error.contains(part), "{args:?}: no {part:?} in: {error}");
    }
}

fn run_tiny(extra: &[&str]) -> Value {
    let model = tiny("smollm2");
    let mut args = vec!["run", "-m", model.to_str().expect("UTF-8"), "-p", "some text", "--json"];
    args.extend(extra);
    json(&galley(&args))
}

#[test]
fn a_run_reports_tokens_text_reason_and_timings() {
    let run = run_tiny(&["--max-tokens", "5", "--ignore-eos", "--logprobs", "2"]);
    let output = &run["outputs"][0];
    assert_eq!(output["token_ids"].as_array().expect("ids").len(), 5);
    assert_eq!(output["logprobs"].as_array().expect("logprobs").len(), 5);
    assert_eq!(output["logprobs"][0]["top"].as_array().expect("alternatives").len(), 2);
    assert_eq!(
        (&output["finish_reason"], &output["stop_reason"]),
        (&"length".into(), &Value::Null)
    );
    assert!(output["text"].is_string());
    assert_eq!(
        output["usage"]["prompt_tokens"],
        run["prompt_token_ids"].as_array().expect("ids").len()
    );
    assert!(run["timings"]["decode_tok_s"].as_f64().expect("a rate") > 0.0);
    assert!(run["kv_blocks_used"].as_u64().expect("blocks") > 0);
    let run = run_tiny(&["--max-tokens", "1"]);
    assert!(run["kv_blocks_used"].as_u64().expect("blocks") > 0, "in the only step, too");
}

#[test]
fn a_seed_fixes_the_output_and_another_seed_changes_it() {
    let ids = |extra: &[&str]| {
        let mut args = vec!["--max-tokens", "16", "--ignore-eos", "--temperature", "1.5"];
        args.extend(extra);
        run_tiny(&args)["outputs"][0]["token_ids"].clone()
    };
    let first = ids(&["--seed", "7"]);
    assert_eq!(first, ids(&["--seed", "7"]));
    assert_eq!(first, ids(&["--seed", "7", "--threads", "1", "--max-num-batched-tokens", "64"]));
    // Without a drafter, `--verify` has no effect.
    assert_eq!(first, ids(&["--seed", "7", "--verify", "rejection"]));
    assert_ne!(first, ids(&["--seed", "8"]));
}

#[test]
#[cfg(feature = "emulate")]
fn another_device_writes_the_same_greedy_text() {
    let on = |device| run_tiny(&["--device", device, "--max-tokens", "8"]);
    let (cpu, emulated) = (on("cpu"), on("emulated"));
    assert!(emulated["backend"].as_str().expect("a backend").starts_with("emulated"));
    assert_eq!(cpu["outputs"][0]["token_ids"], emulated["outputs"][0]["token_ids"]);
}

#[test]
#[cfg(feature = "emulate")]
fn the_kv_pool_is_what_the_memory_of_the_device_leaves() {
    let on = |memory_mib: &str, share: &str| {
        let model = tiny("smollm2");
        let model = model.to_str().expect("UTF-8");
        let args = ["run", "-m", model, "-p", "some text", "--max-tokens", "2", "--json"];
        let device = ["--device", "emulated", "--gpu-memory-utilization", share];
        let device = [&device[..], &["--kv-cache-tokens", "1000000"]].concat();
        let mut galley = command(&[&args[..], &device].concat());
        galley.env("GALLEY_EMULATOR_MEMORY_MIB", memory_mib).output().expect("the binary starts")
    };
    let n_blocks = |memory_mib, share| {
        json(&on(memory_mib, share))["kv_blocks_total"].as_u64().expect("blocks")
    };
    let (all, half, quarter) =
        (n_blocks("1024", "0.9"), n_blocks("4", "0.9"), n_blocks("4", "0.45"));
    assert!(all > half && half > quarter && quarter > 0, "{all} {half} {quarter}");
    let error = on("1", "0.9").stderr;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("out of memory: ") && error.contains(" needs "), "{error}");
}

#[test]
fn all_file_formats_of_a_model_give_the_same_tokens() {
    let ids = |name: &str| {
        let model = tiny(name);
        let model = model.to_str().expect("UTF-8");
        let args = ["run", "-m", model, "-p", "one two three", "--max-tokens", "12", "--json"];
        json(&galley(&args))["outputs"][0]["token_ids"].clone()
    };
    assert_eq!(ids("smollm2"), ids("smollm2.gguf"));
    assert_ne!(ids("smollm2"), ids("llama3"));
}

#[test]
fn bench_prints_one_object_a_row() {
    let model = tiny("llama3");
    let args = ["bench", "-m", model.to_str().expect("UTF-8"), "--batch", "1,3", "--context"];
    let output =
        galley(&[&args[..], &["16,40", "--gen", "40", "--random-tokens", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 4);
    // 16 + 40 and 40 + 40 tokens (the last needs no slot) in blocks of 16, for one and for three sequences.
    // The runs are long enough for the three to decode together.
    let blocks: Vec<_> = rows.iter().map(|row| row["kv_blocks_used"].as_u64()).collect();
    assert_eq!(blocks, [Some(4), Some(12), Some(5), Some(15)]);
    for row in rows {
        for field in ["batch", "context", "prefill_tok_s", "decode_tok_s", "ttft_ms", "t_step_ms"] {
            assert!(row[field].as_f64().expect(field) > 0.0, "{field}: {row}");
        }
        for field in ["model", "backend", "drafter", "kv_blocks_used", "peak_rss_mb"] {
            assert!(!row.get(field).is_none_or(|v| v.is_null() && field != "drafter"), "{field}");
        }
    }
}

/// Builds a drafter of Galley's into the folder of the binary, where the binary searches for drafters.
fn build_drafter(name: &str) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let package = format!("galley-drafter-{name}");
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.args(["build", "--quiet", "--locked", "--package", &package]);
    assert!(build.status().expect("cargo runs").success(), "{package} builds");
}

#[test]
fn bench_measures_a_drafter_beside_plain_decoding() {
    build_drafter("ngram");
    let model = tiny("llama3");
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("rhyme.txt");
    std::fs::write(&text, "the same line once more, ".repeat(60)).expect("written");
    let text = text.to_str().expect("UTF-8");
    let args = ["bench", "-m", model.to_str().expect("UTF-8"), "--batch", "2", "--context", "64"];
    let args = [&args[..], &["--gen", "48", "--dataset", text, "--json"]].concat();
    let rows = |extra: &[&str]| -> Vec<Value> {
        let output = galley(&[&args[..], extra].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let drafted = rows(&["--drafter", "ngram,min=1", "--draft-length", "1,3", "--seed", "5"]);
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(f64::NAN);
    for (row, draft_length) in drafted[1..].iter().zip([1, 3]) {
        assert_eq!(row["drafter"], "ngram,min=1");
        assert_eq!(row["draft_length"], draft_length);
        assert!(row.get("kv_budget").is_some_and(Value::is_null), "its own: {row}");
        assert_eq!(row["dataset"], text);
        let per_pos = row["accepted_per_pos"].as_array().expect("counts");
        let n_accepted: u64 = per_pos.iter().filter_map(Value::as_u64).sum();
        assert!(per_pos.len() <= draft_length && n_accepted > 0, "{row}");
        let (rate, len) = (number(row, "accept_rate"), number(row, "accept_len"));
        assert!(rate > 0.0 && rate <= 1.0, "{row}");
        assert!(len > 1.0 && len <= 1.0 + draft_length as f64, "{row}");
        for field in ["t_draft_ms", "t_verify_ms", "t_target_ms", "overhead_ms", "speedup"] {
            assert!(number(row, field) > 0.0, "{field}: {row}");
        }
        let round: f64 =
            ["t_draft_ms", "t_verify_ms", "overhead_ms"].iter().map(|f| number(row, f)).sum();
        let omega: f64 = (0..=draft_length as i32).map(|i| number(row, "alpha").powi(i)).sum();
        let a_turn = 1.0 + number(row, "drafted_fraction") * (omega - 1.0);
        let predicted = number(row, "t_target_ms") * a_turn / round;
        assert!((predicted / number(row, "predicted_speedup") - 1.0).abs() < 1e-6, "{row}");
    }
    assert_eq!(drafted.len(), 3);
    // A row without a drafter has no fields of drafting.
    for row in [&rows(&[])[..], &drafted[..1]].concat() {
        assert!(row["drafter"].is_null() && row.get("speedup").is_none(), "{row}");
        assert_eq!(row["dataset"], text);
    }
    refused(&[&args[..], &["--drafter", "ngarm"]].concat(), &["ngarm", "ngram"]);
}

/// The windows are as short as possible: a window that depended on the timing of the test process would sometimes be
/// empty.
#[test]
fn bench_measures_or_says_that_it_did_not() {
    build_drafter("ngram");
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let bench = ["bench", "-m", model, "--batch", "2", "--context", "64", "--random-tokens"];
    let bench = [&bench[..], &["--json", "--drafter", "ngram,min=1"]].concat();
    for n_tokens in ["2", "3", "7"] {
        let args = ["--gen", n_tokens, "--draft-length", "1,8", "--repeats", "3"];
        let output = galley(&[&bench[..], &args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len(), 3);
        for row in rows {
            let is_drafted = !row["drafter"].is_null();
            let measured = ["prefill_tok_s", "decode_tok_s", "ttft_ms", "t_step_ms"];
            let drafted =
                ["t_verify_ms", "t_target_ms", "overhead_ms", "speedup", "predicted_speedup"];
            let drafted = drafted.iter().filter(|_| is_drafted);
            for field in measured.iter().chain(drafted) {
                assert!(row[field].as_f64().is_some_and(|x| x > 0.0), "{field}: {row}");
            }
            // A rate over no draft tokens is null, not 0.
            if is_drafted && row["drafted_fraction"] == 0.0 {
                let rates = ["accept_rate", "accept_len", "alpha"];
                assert!(rates.iter().all(|field| row[field].is_null()), "{row}");
            }
        }
    }
    // The cache holds one sequence, so the two never run together and no row is printed.
    let output = galley(&[&bench[..], &["--gen", "20", "--kv-cache-tokens", "144"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{stderr}");
    assert!(stderr.contains("nothing was measured") && stderr.contains("--gen"), "{stderr}");
}

#[test]
fn bench_reads_prompts_once_for_all_drafters() {
    build_drafter("ngram");
    build_drafter("streaming-llm");
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let sweep = |extra: &[&str]| -> (Vec<Value>, String) {
        let args = ["bench", "-m", model, "--context", "200", "--gen", "8", "--json"];
        let settings = ["--drafter", "ngram,min=1", "--drafter", "streaming-llm"];
        let output = galley(&[&args[..], &settings, extra].concat());
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{stderr}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), stderr)
    };
    let lists = ["--batch", "1,3", "--draft-length", "1,2", "--kv-budget", "32,64"];
    let (rows, stderr) = sweep(&lists);
    assert_eq!(rows.len(), 2 * (1 + 2 * 2 * 2));
    // Prompt tokens that a pass computed again, per sequence.
    let reread = |row: &Value| {
        row["reread_tokens"].as_u64().map(|n| n / row["batch"].as_u64().expect("a batch"))
    };
    assert!(rows.iter().filter_map(reread).all(|n| n <= 17), "{rows:?}");
    let kinds: Vec<_> = rows[1..9]
        .iter()
        .map(|row| (row["drafter"].as_str().expect("a name"), row["draft_length"].as_u64()))
        .collect();
    assert_eq!(kinds[3..5], [("ngram,min=1", Some(2)), ("streaming-llm", Some(1))]);
    assert!(stderr.contains("[18/18] batch 3, context 200: streaming-llm"), "{stderr}");
    assert!(stderr.contains(" to go)") && !stderr.contains("read again"), "{stderr}");
    // Without prefix caching, every pass reads the prompts. In a cache too small for the three, they never
    // run together.
    let (rows, _) = sweep(&["--batch", "3", "--no-prefix-caching"]);
    assert!(rows.iter().filter_map(reread).all(|n| n >= 200), "{rows:?}");
    let bench = ["bench", "-m", model, "--context", "200", "--gen", "8", "--json", "--batch", "3"];
    let small = [&bench[..], &["--drafter", "ngram", "--kv-cache-tokens", "272"]].concat();
    refused(&small, &["nothing was measured", "--kv-cache-tokens"]);
    let twice = ["--drafter", "ngram", "--drafter", "ngram,min=1"];
    let bench = ["bench", "-m", model, "--context", "32"];
    refused(&[&bench[..], &twice].concat(), &["\"ngram\"", "ngram,min=1"]);
    refused(&[&["run", "-m", model, "-p", "x"][..], &twice].concat(), &["ngram,min=1", "bench"]);
}

#[test]
fn broken_model_files_are_refused_by_file_and_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |change: &dyn Fn(&Path)| {
        let to = folder.path().join("model");
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).expect("a folder");
        for entry in std::fs::read_dir(tiny("smollm2")).expect("a model") {
            let from = entry.expect("an entry").path();
            std::fs::copy(&from, to.join(from.file_name().expect("a name"))).expect("a copy");
        }
        change(&to);
        to.to_str().expect("UTF-8").to_owned()
    };
    let check = |change: &dyn Fn(&Path), parts: &[&str]| {
        let model = copy(change);
        refused(&["run", "-m", &model, "-p", "text", "--max-tokens", "2"], parts);
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |model: &Path| {
            let path = model.join(file);
            let text = std::fs::read_to_string(&path).expect("text");
            assert!(text.contains(from), "{file} has no {from}");
            std::fs::write(&path, text.replace(from, to)).expect("written");
        }
    };
    check(&|m| std::fs::write(m.join("config.json"), "{").expect("written"), &["config.json"]);
    check(&|m| std::fs::remove_file(m.join("config.json")).expect("removed"), &["config.json"]);
    check(
        &|m| std::fs::remove_file(m.join("tokenizer.json")).expect("removed"),
        &["tokenizer.json"],
    );
    check(
        &|m| {
            let path = m.join("model.safetensors");
            let bytes = std::fs::read(&path).expect("bytes");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        },
        &["model.safetensors"],
    );
    check(&edit("config.json", "LlamaForCausalLM", "MambaForCausalLM"), &["config.json", "Mamba"]);
    check(&edit("config.json", "\"hidden_size\": ", "\"hidden_size\": 9"), &["model"]);
    check(
        &edit("config.json", "\"num_hidden_layers\": ", "\"num_hidden_layers\": 99999999"),
        &["num_hidden_layers"],
    );
}
