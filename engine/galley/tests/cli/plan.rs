//! `galley plan`: its numbers, its advice and its errors.

use crate::{command, galley, json, refused, tiny};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The configuration of Llama-3.1-8B, and of Llama-3.2-1B, alone in a folder.
fn configs() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, sizes: &str| {
        let path = folder.path().join(name);
        let rest = r#""architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "num_key_value_heads": 8,
            "num_attention_heads": 32, "max_position_embeddings": 131072, "rope_theta": 500000.0"#;
        std::fs::write(&path, format!("{{{rest}, {sizes}}}")).expect("written");
        path
    };
    let large = r#""hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32"#;
    let small = r#""hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": true"#;
    let paths = (write("8b.json", large), write("1b.json", small));
    (folder, paths.0, paths.1)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn planned(model: &Path, extra: &[&str]) -> Value {
    json(&galley(&[&["plan", "-m", text(model), "--json"][..], extra].concat()))
}

fn printed(model: &Path, extra: &[&str]) -> String {
    let output = galley(&[&["plan", "-m", text(model)][..], extra].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

const EIGHT_H100: [&str; 4] = ["--gpu", "h100", "--tp", "8"];

#[test]
fn a_plan_has_the_published_speedups() {
    let (_folder, model, _) = configs();
    let lists = ["--batch", "4,16,64,256", "--context", "16000", "--acceptance", "0.82"];
    let plan = planned(&model, &[&EIGHT_H100[..], &lists, &["--max-draft-length", "4"]].concat());
    let workloads = plan["workloads"].as_array().expect("a list");
    assert_eq!(workloads.len(), 4);
    for (workload, (draft_length, plain_ms, speedup)) in workloads.iter().zip([
        (1, 0.983983, 1.08902),
        (3, 2.09072, 1.39469),
        (4, 6.52403, 1.84771),
        (4, 24.26, 2.10895),
    ]) {
        let best = &workload["recommended"];
        assert_eq!((&best["drafter"], &best["kv_budget"]), (&"streaming-llm".into(), &512.into()));
        assert_eq!(best["draft_length"], draft_length);
        assert!((number(&best["speedup"]) / speedup - 1.0).abs() < 0.006, "{best}");
        assert!((number(&workload["plain"]["ms"]) / plain_ms - 1.0).abs() < 0.006, "{workload}");
        let shares = ["weights_share", "kv_share", "compute_share"];
        let sum: f64 = shares.iter().map(|share| number(&workload["plain"][share])).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{workload}");
        assert_eq!(workload["memory"]["fits"], true, "up to 267 sequences");
    }
    assert_eq!(workloads[0]["plain"]["bound_by"], "weights");
    assert_eq!(workloads[3]["plain"]["bound_by"], "kv");
}

#[test]
fn text_says_what_to_do_and_why() {
    let (_folder, model, draft) = configs();
    let long = ["--batch", "64", "--context", "32000"];
    let plan = printed(&model, &[&EIGHT_H100[..], &long].concat());
    for part in [
        "recommended     streaming-llm, KV budget 512, draft length ",
        "bound by reading the KV cache",
        "streaming-llm needs α > 0.",
        "0.81* is assumed",
        "critical length ",
        "memory          fits: 2.01 GB of weights and 33.55 GB of KV on each GPU",
        "Llama-3.1-8B on PG-19",
    ] {
        assert!(plan.contains(part), "no {part:?} in: {plan}");
    }
    // The control: a short context at a large batch on a GPU with few operations a byte.
    let short = ["--gpu", "l40", "--batch", "256", "--context", "600"];
    let plan = printed(&model, &short);
    let parts = [
        "recommended     plain decoding: ",
        "streaming-llm pays at no acceptance",
        "bound by compute",
    ];
    for part in parts {
        assert!(plan.contains(part), "no {part:?} in: {plan}");
    }
    let large = ["--gpu", "l40", "--batch", "256", "--context", "6000"];
    assert!(printed(&model, &large).contains("memory          does not fit: "));
    // Several workloads are a table.
    let lists = ["--batch", "1,64", "--context", "1000,32000", "--draft-model", text(&draft)];
    let table = printed(&model, &[&EIGHT_H100[..], &lists].concat());
    assert_eq!(table.matches("small-model K 512").count(), 3, "{table}");
    assert_eq!(table.matches("streaming-llm K 512").count(), 1, "{table}");
    assert!(table.contains("draft model     Llama, 1235.7 M parameters"), "{table}");
}

#[test]
fn acceptances_are_for_their_drafters() {
    let (_folder, model, draft) = configs();
    let workload = |extra: &[&str]| {
        let args = ["--batch", "32", "--context", "16000", "--draft-model", text(&draft)];
        planned(&model, &[&EIGHT_H100[..], &args, extra].concat())["workloads"][0].clone()
    };
    let of = |workload: &Value, drafter: &str| {
        let drafters = workload["drafters"].as_array().expect("a list").iter();
        let found = drafters.filter(|of| of["drafter"] == drafter);
        found.map(|of| (of["acceptance"].clone(), of["acceptance_source"].clone())).next()
    };
    let none = (Value::Null, Value::Null);
    let published = workload(&[]);
    assert_eq!(of(&published, "streaming-llm"), Some((0.82.into(), "published".into())));
    assert_eq!(of(&published, "small-model"), Some((0.7.into(), "published".into())));
    assert_eq!(of(&published, "ngram"), Some(none.clone()));
    let given = workload(&["--acceptance", "0.6,ngram=0.4"]);
    for drafter in ["streaming-llm", "snap-kv", "self-spec", "small-model"] {
        assert_eq!(of(&given, drafter), Some((0.6.into(), "given".into())), "{drafter}");
    }
    assert_eq!(of(&given, "ngram"), Some((0.4.into(), "given".into())));
    assert_eq!(of(&given, "layer-skip"), Some(none.clone()));
    // A published acceptance does not hold for a smaller budget.
    assert_eq!(of(&workload(&["--kv-budget", "128"]), "streaming-llm"), Some(none));
    // Every drafter has a break-even, and pays only above it.
    for drafter in given["drafters"].as_array().expect("a list") {
        let needed = &drafter["break_even"];
        assert!((0.0..=1.0).contains(&number(&needed["acceptance"])), "{drafter}");
        if let Some(acceptance) = drafter["acceptance"].as_f64() {
            let pays = number(&drafter["round"]["speedup"]) > 1.0;
            assert_eq!(pays, acceptance > number(&needed["acceptance"]), "{drafter}");
        }
    }
}

#[test]
fn formats_change_the_bytes() {
    let (_folder, model, _) = configs();
    let bytes = |model: &Path, extra: &[&str]| {
        let plan = planned(model, &[&["--context", "200"], extra].concat());
        (number(&plan["model"]["bytes_per_weight"]), number(&plan["model"]["kv_bytes_per_token"]))
    };
    let cpu = ["--bandwidth-gb-s", "40", "--tflops", "1.5"];
    assert_eq!(bytes(&model, &cpu), (2.0, 131_072.0));
    let (weights, kv) = bytes(&model, &[&cpu[..], &["--weights", "q4", "--kv-bits", "8"]].concat());
    assert_eq!((weights, kv), (0.5625, 65_536.0));
    // A quantised file keeps its blocks on a CPU, and is expanded on a GPU.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tiny.gguf");
    let copy = crate::info::edit::GgufCopy::of(&tiny("smollm2.gguf"));
    copy.with_q8_0("token_embd.weight").with_q8_0("blk.0.attn_q.weight").write(&file);
    assert!(bytes(&file, &cpu).0 < bytes(&tiny("smollm2.gguf"), &cpu).0);
    assert_eq!(bytes(&file, &["--gpu", "L4"]).0, 2.0);
}

#[test]
fn models_of_every_form_are_planned_without_their_weights() {
    let cpu = ["--bandwidth-gb-s", "40", "--tflops", "1.5", "--context", "200"];
    let shape = |model: &Path| {
        let mut model = planned(model, &cpu)["model"].clone();
        model["path"].take();
        model
    };
    let folder = shape(&tiny("smollm2"));
    assert_eq!(folder, shape(&tiny("smollm2").join("config.json")));
    assert_eq!(folder, shape(&tiny("smollm2.gguf")));
    let mut plan = command(&["plan", "--json"]);
    let variables = [("GALLEY_MODEL", tiny("qwen3")), ("GALLEY_GPU", "L4".into())];
    let plan = json(&plan.envs(variables).output().expect("the binary starts"));
    assert_eq!(
        (&plan["model"]["family"], &plan["hardware"]["name"]),
        (&"Qwen3".into(), &"L4".into())
    );
    // Numbers of the command line replace a GPU of the environment.
    let mut plan = command(&[&["plan", "--json", "-m", text(&tiny("qwen3"))][..], &cpu].concat());
    let plan = json(&plan.env("GALLEY_GPU", "L4").output().expect("the binary starts"));
    assert_eq!(plan["hardware"]["bandwidth_gb_s"], 40.0);
}

#[test]
fn wrong_plans_are_refused_with_a_way_out() {
    let (folder, model, _) = configs();
    let plan = |extra: &[&str], parts: &[&str]| {
        refused(&[&["plan", "-m", text(&model)][..], extra].concat(), parts);
    };
    plan(&[], &["--gpu", "H100-SXM", "--bandwidth-gb-s"]);
    plan(&["--gpu", "H1000"], &["--gpu (GALLEY_GPU)", "H1000", "H100-PCIe", "RTX-4090", "B200"]);
    plan(&["--gpu", "L4", "--tflops", "3"], &["--tflops"]);
    plan(&["--tflops", "3"], &["--bandwidth-gb-s"]);
    plan(&["--bandwidth-gb-s", "-3", "--tflops", "3"], &["--bandwidth-gb-s", "above 0"]);
    plan(&["--gpu", "L4", "--tp", "3"], &["--tp", "32 query heads", "1, 2, 4, 8"]);
    plan(&["--gpu", "L4", "--batch", "0"], &["--batch", "at least 1"]);
    plan(&["--gpu", "L4", "--context", "x"], &["--context", "whole number"]);
    plan(&["--gpu", "L4", "--acceptance", "1.2"], &["--acceptance", "0 to 1"]);
    plan(&["--gpu", "L4", "--acceptance", "ngarm=0.3"], &["ngarm", "ngram"]);
    plan(&["--gpu", "L4", "--draft-layers", "33"], &["--draft-layers", "32"]);
    plan(&["--gpu", "L4", "--draft-model", "no/such/model"], &["--draft-model", "no/such/model"]);
    plan(&["--gpu", "L4", "--kv-bits", "3"], &["--kv-bits", "16"]);
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{").expect("written");
    refused(&["plan", "-m", text(&broken), "--gpu", "L4"], &["broken.json"]);
    refused(&["plan", "-m", "no/such/model", "--gpu", "L4"], &["no/such/model"]);
    // A method of quantisation changes no shape. The control: another architecture does.
    let text_of = std::fs::read_to_string(&model).expect("text");
    let changed = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let awq = text_of.replacen('{', r#"{"quantization_config": {"quant_method": "awq"}, "#, 1);
    assert!(printed(&changed("awq.json", awq), &["--gpu", "L4"]).contains("8030.0 M parameters"));
    let mamba = changed("mamba.json", text_of.replace("LlamaFor", "MambaFor"));
    refused(&["plan", "-m", text(&mamba), "--gpu", "L4"], &["mamba.json", "Mamba"]);
    let output = galley(&["plan", "--help"]);
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(help.contains("galley plan -m ") && help.contains("docs/planning.md"), "{help}");
}
