//! Wrong settings cause an error that names the flag before a model is loaded, and never a panic.

use crate::{command, galley, refused, tiny};

#[test]
fn wrong_settings_are_refused_by_name() {
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let run = |extra: &[&'static str], parts: &[&str]| {
        let mut args = vec!["run", "-m", model, "-p", "text"];
        args.extend(extra);
        refused(&args, parts);
    };
    run(&["--temperature", "-1"], &["--temperature (GALLEY_TEMPERATURE)"]);
    run(&["--temperature", "NaN"], &["--temperature (GALLEY_TEMPERATURE)"]);
    run(&["--top-p", "0"], &["--top-p (GALLEY_TOP_P)"]);
    run(&["--max-tokens", "0"], &["--max-tokens"]);
    run(&["--max-tokens", "100000"], &["--max-tokens (GALLEY_MAX_TOKENS)", "context"]);
    run(&["--kv-cache-tokens", "16", "--max-tokens", "100"], &["KV cache"]);
    run(&["--max-num-batched-tokens", "4000000000"], &["out of memory"]);
    run(&["--kv-cache-tokens", "4000000000"], &["out of memory", "KV"]);
    run(&["--block-size", "12"], &["block-size", "16"]);
    run(&["--threads", "0"], &["threads"]);
    run(&["--cpu", "sse9"], &["sse9", "portable"]);
    run(&["--dtype", "int3"], &["int3", "bf16"]);
    run(&["--weights", "q5"], &["--weights", "q5", "native, q8, q4, bf16 or f32"]);
    run(&["--weights", "bf16", "--dtype", "f32"], &["--weights (GALLEY_WEIGHTS)", "native, q8"]);
    run(&["--device", "cuda:1", "--weights", "q8"], &["no weights q8", "--device cpu"]);
    run(&["--device", "gpu"], &["gpu", "cuda:N"]);
    run(&["--gpu-memory-utilization", "2"], &["gpu-memory-utilization", "0.05 to 1"]);
    if !cfg!(feature = "cuda") {
        run(&["--device", "cuda:1"], &["cuda:1", "--features cuda", "--device cpu"]);
    }
    if cfg!(feature = "emulate") {
        run(&["--device", "emulated", "--dtype", "f32"], &["no dtype f32", "--device cpu"]);
        run(&["--device", "emulated", "--weights", "q4"], &["no weights q4", "--device cpu"]);
    }
    run(&["--logit-bias", "nonsense"], &["nonsense", "TOKEN_ID:BIAS"]);
    run(&["--verify", "maybe"], &["maybe", "equality or rejection"]);
    run(&["--stop-token-id", "999999"], &["--stop-token-id (GALLEY_STOP_TOKEN_ID)", "999999"]);
    run(&["--max-num-batched-tokens", "3"], &["max-num-batched-tokens"]);
    refused(&["run", "-m", model, "-p", ""], &["prompt"]);
    refused(&["run", "-m", model, "-f", "no/such/file"], &["prompt-file", "no/such/file"]);
    refused(&["bench", "-m", model, "--context", "99999"], &["context", "99999"]);
    let bench = ["bench", "-m", model, "--context", "32"];
    refused(&[&bench[..], &["--dataset", "no/such/set"]].concat(), &["no/such/set", "moby-dick"]);
    refused(&["bench", "-m", model, "--random-tokens", "--dataset", "code"], &["--dataset"]);
    refused(&["run", "-m", "no/such/model", "-p", "text"], &["no/such/model"]);
}

/// Sizes at and beyond the ends of their ranges: in every command, the flag refuses the size or the command works.
#[test]
fn case_25_a_size_of_nothing_or_too_much_is_refused_by_its_flag() {
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let run = ["run", "-m", model, "-p", "text"];
    let chat = ["chat", "-m", model];
    let bench = ["bench", "-m", model];
    let huge = "18446744073709551616";
    for command in [&run[..], &chat, &bench] {
        for flag in ["--block-size", "--kv-cache-tokens", "--max-num-seqs", "--threads"] {
            for value in ["0", "-1", huge, "18446744073709551600", "x", "1.5", ""] {
                refused(
                    &[command, &[flag, value]].concat(),
                    &[flag, "is needed"].map(|part| {
                        if value.starts_with("1844") && part == "is needed" {
                            "at most"
                        } else {
                            part
                        }
                    }),
                );
            }
        }
        refused(&[command, &["--max-num-batched-tokens", "0"]].concat(), &["at least 1"]);
        refused(&[command, &["--draft-length", "1025"]].concat(), &["--draft-length", "1024"]);
        refused(&[command, &["--kv-budget", "0"]].concat(), &["--kv-budget", "at least 1"]);
        refused(&[command, &["--kv-budget", huge]].concat(), &["--kv-budget", "at most"]);
        for value in ["NaN", "-1", "inf", "-inf", "101"] {
            refused(&[command, &["--temperature", value]].concat(), &["--temperature"]);
        }
    }
    for (flag, values) in [
        ("--max-tokens", &["0", "-1", huge][..]),
        ("--n", &["0", "-1", "65", huge]),
        ("--prompt-tokens", &["0"]),
        ("--top-p", &["0", "-0.5", "1.5", "NaN"]),
        ("--min-p", &["-0.1", "1.1", "NaN"]),
        ("--repetition-penalty", &["0", "-1", "inf", "NaN"]),
        ("--presence-penalty", &["1000", "-inf", "NaN"]),
        ("--frequency-penalty", &["-1000", "NaN"]),
        ("--logit-bias", &["1:NaN", "1:inf", "x:1", "-1:1", "1"]),
        ("--logprobs", &["1000", "-1"]),
        ("--top-k", &["-1"]),
        ("--seed", &["-1", huge]),
        ("--stop", &[""]),
        ("--min-tokens", &["-1"]),
    ] {
        for value in values {
            refused(&[&run[..], &[flag, value]].concat(), &[flag]);
        }
    }
    for (flag, values) in [
        ("--batch", &["0", "1,0", "-1", huge, "9999999"][..]),
        ("--context", &["0", "16,0", huge]),
        ("--gen", &["0", "1", huge]),
        ("--draft-length", &["0", "3,0", huge]),
        ("--kv-budget", &["0", "64,0"]),
        ("--repeats", &["0"]),
    ] {
        for value in values {
            refused(&[&bench[..], &[flag, value]].concat(), &[flag]);
        }
    }
}

/// Unusual sizes at the ends of their ranges that work.
#[test]
fn sizes_that_are_odd_and_possible_do_their_work() {
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let ids = |extra: &[&str]| {
        let args = ["run", "-m", model, "-p", "text", "--max-tokens", "8", "--json"];
        crate::json(&galley(&[&args[..], extra].concat()))["outputs"][0]["token_ids"].clone()
    };
    let plain = ids(&[]);
    for extra in [
        &["--block-size", "65536"][..],
        &["--block-size", "48", "--kv-cache-tokens", "1000"],
        &["--max-num-seqs", "1", "--max-num-batched-tokens", "1"],
        &["--draft-length", "0"],
        &["--draft-length", "1024"],
        &["--kv-budget", "4294967295"],
        &["--temperature", "-0"],
        &["--top-p", "1", "--min-p", "0", "--top-k", "0"],
        &["--n", "1", "--logprobs", "0"],
    ] {
        assert_eq!(ids(extra), plain, "{extra:?}");
    }
}

/// Formats that do not go together are refused before a model is looked for.
#[test]
fn wrong_pairs_of_formats_are_refused_before_the_model_is_opened() {
    let args = ["run", "-m", "no/such/model", "-p", "x", "--weights", "f32"];
    refused(&args, &["--weights (GALLEY_WEIGHTS)", "weights f32 take dtype f32"]);
}

/// Formats of weights of a file of floats: native and bf16 have the same bytes.
#[test]
fn a_file_of_floats_has_the_same_bytes_and_fingerprint_natively_and_in_bf16() {
    let run = |extra: &[&str]| {
        let run = crate::run_tiny(&[&["--max-tokens", "8"], extra].concat());
        (run["fingerprint"].clone(), run["outputs"][0]["token_ids"].clone())
    };
    let plain = run(&[]);
    for weights in ["native", "bf16"] {
        assert_eq!(run(&["--weights", weights]), plain, "{weights}");
    }
    let name = |run: &(serde_json::Value, _)| run.0.as_str().expect("a name").to_owned();
    assert!(name(&plain).contains("-bf16/model-"), "{plain:?}");
    let reference = run(&["--dtype", "f32"]);
    assert!(name(&reference).contains("-f32/model-"), "{reference:?}");
    assert_eq!(run(&["--dtype", "f32", "--weights", "native"]), reference);
}

/// Wrong flags are refused before a model is opened.
#[test]
fn wrong_sampling_is_refused_before_the_model_is_opened() {
    let args = ["run", "-m", "no/such/model", "-p", "x", "--top-p", "7"];
    refused(&args, &["--top-p (GALLEY_TOP_P)", "7 is not between"]);
    let mut chat = command(&["chat", "-m", "no/such/model"]);
    let output = chat.env("GALLEY_MIN_P", "7").output().expect("the binary starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("GALLEY_MIN_P") && !error.contains("no/such/model"), "{error}");
}

/// A folder and a file that is not UTF-8 are refused as prompt files.
#[test]
fn a_prompt_file_may_be_a_pipe_and_is_no_folder() {
    let model = tiny("llama3");
    let model = model.to_str().expect("UTF-8");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    refused(&["run", "-m", model, "-f", path], &["--prompt-file", path]);
    let text = folder.path().join("bytes.txt");
    std::fs::write(&text, b"abc\xff").expect("written");
    let text = text.to_str().expect("UTF-8");
    refused(&["run", "-m", model, "-f", text], &["--prompt-file", text, "not UTF-8", "byte 3"]);
}
