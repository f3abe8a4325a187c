//! Files that are broken or have false sizes give an error that names the file and the field. They
//! never cause a panic or an allocation of a false size: the sizes here exceed any address space.

mod common;

use common::{CONFIG, Gguf, HEADER, TYPE_F32, directory, exercise::exercise, refuses, safetensors};
use std::{fs, path::Path};

#[track_caller]
fn refuses_config(config: &str, texts: &[&str]) {
    let weights = safetensors(HEADER, 48);
    let files = [("config.json", config.as_bytes()), ("model.safetensors", &weights[..])];
    refuses(&files, &[&["config.json: "], texts].concat());
}

/// Replaces `from` by `to` in the small configuration, which must then be refused with `texts`.
#[track_caller]
fn refuses_config_with(from: &str, to: &str, texts: &[&str]) {
    assert!(CONFIG.contains(from), "{from}");
    refuses_config(&CONFIG.replace(from, to), texts);
}

#[track_caller]
fn refuses_header(header: &str, texts: &[&str]) {
    refuses_weights(&safetensors(header, 48), texts);
}

#[track_caller]
fn refuses_weights(weights: &[u8], texts: &[&str]) {
    let files = [("config.json", CONFIG.as_bytes()), ("model.safetensors", weights)];
    refuses(&files, &[&["model.safetensors: "], texts].concat());
}

#[test]
fn the_small_files_are_sound() {
    let gguf = directory(&[("model.gguf", &Gguf::tiny().bytes())]);
    exercise(gguf.path()).unwrap();
    let weights = safetensors(HEADER, 48);
    let hf = directory(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &weights)]);
    exercise(hf.path()).unwrap();
}

#[test]
fn nothing_to_open() {
    let empty = directory(&[]);
    refuses(&[], &["has neither model.safetensors"]);
    refuses(&[("a.gguf", b"GGUF"), ("b.gguf", b"GGUF")], &["2 .gguf files"]);
    let missing = empty.path().join("missing");
    assert!(exercise(&missing).unwrap_err().to_string().contains("missing: "));
    refuses(&[("model.safetensors", b"x")], &["config.json: No such file"]);
    let text = directory(&[("readme.md", b"hello")]);
    let error = exercise(&text.path().join("readme.md")).unwrap_err().to_string();
    assert!(error.contains("readme.md: neither a directory"), "{error}");
}

#[test]
fn every_shorter_file_is_an_error() {
    let gguf = Gguf::tiny().bytes();
    shorten("model.gguf", &gguf, &[]);
    let weights = safetensors(HEADER, 48);
    shorten("model.safetensors", &weights, &[("config.json", CONFIG.as_bytes())]);
    shorten("config.json", CONFIG.as_bytes(), &[("model.safetensors", &weights)]);
}

/// The headers of the files list the tensors, so a defective index is ignored.
#[test]
fn an_index_that_is_cut_off_or_lies_is_not_needed() {
    let weights = safetensors(HEADER, 48);
    let open = |index: &str| {
        let files = directory(&[
            ("config.json", CONFIG.as_bytes()),
            ("a.safetensors", &weights[..]),
            ("b.safetensors", &weights[..]),
            ("model.safetensors.index.json", index.as_bytes()),
        ]);
        exercise(files.path()).map_err(|error| error.to_string())
    };
    for length in 0..=INDEX.len() {
        open(&INDEX[..length]).unwrap();
    }
    for lie in ["7", "\"../a.safetensors\"", "\"/etc/passwd\"", "\"sub/a\"", "\"..\"", "\"\""] {
        open(&INDEX.replace("\"a.safetensors\"", lie)).unwrap();
    }
    let error = open(&INDEX.replace("a.safetensors", "c.safetensors")).unwrap_err();
    assert!(error.contains("c.safetensors is not there"), "{error}");
}

#[track_caller]
fn shorten(name: &str, bytes: &[u8], rest: &[(&str, &[u8])]) {
    let directory = directory(&[rest, &[(name, bytes)]].concat());
    let path = directory.path().join(name);
    exercise(directory.path()).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = exercise(directory.path()).expect_err("shorter file").to_string();
        assert!(error.contains(name), "{length} bytes: {error}");
    }
}

#[test]
fn safetensors_headers_that_lie() {
    let mut oversized = safetensors(HEADER, 48);
    oversized[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    refuses_weights(&oversized, &["header: says it has 1152921504606846976 bytes"]);
    oversized[..8].copy_from_slice(&99_999_999_u64.to_le_bytes());
    refuses_weights(&oversized, &["header: says it has 99999999 bytes, but only"]);
    refuses_header("[]", &["header: ", "an object of tensors"]);
    refuses_header("{", &["header: EOF"]);
    refuses_weights(&safetensors(HEADER, 47), &["input_layernorm.weight: data ends at 48"]);

    let norm = "model.norm.weight";
    let with = |from: &str, to: &str| HEADER.replace(from, to);
    refuses_header(&with("[24, 40]", "[20, 36]"), &[norm, "overlaps model.embed_tokens.weight"]);
    refuses_header(&with("[24, 40]", "[28, 40]"), &[norm, "has 12 bytes of data", "F32"]);
    refuses_header(&with("[24, 40]", "[24, 23]"), &[norm, "before its start"]);
    refuses_header(&with("[24, 40]", "[24, 40, 41]"), &[norm, "data_offsets"]);
    refuses_header(&with("[24, 40]", "[24, -40]"), &[norm, "data_offsets"]);
    refuses_header(
        &with("[24, 40]", "[24, 18446744073709551615]"),
        &[norm, "data ends at 18446744073709551615"],
    );
    refuses_header(&with("\"F32\"", "\"F16\""), &[norm, "has 16 bytes of data", "F16"]);
    refuses_header(&with("\"F32\"", "\"F31\""), &[norm, "is stored as F31; supported are"]);
    refuses_header(
        &with(
            "[4], \"data_offsets\": [24, 40]",
            "[4611686018427387905], \"data_offsets\": [24, 40]",
        ),
        &[norm, "4611686018427387905"],
    );
    refuses_header(&with("model.norm.weight", "model.embed_tokens.weight"), &["appears twice"]);
}

#[test]
fn tensors_that_are_not_as_expected() {
    use galley_model::weights::Checkpoint;
    let open = |header: &str| {
        let weights = safetensors(header, 48);
        let files =
            directory(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &weights)]);
        Checkpoint::open(files.path()).unwrap()
    };
    let checkpoint = open(HEADER);
    let error = |name, shape: &[usize]| checkpoint.tensor(name, shape).unwrap_err().to_string();
    let wrong = error("model.embed_tokens.weight", &[4, 3]);
    assert!(wrong.contains("model.safetensors: model.embed_tokens.weight"), "{wrong}");
    assert!(wrong.contains("[3, 4]") && wrong.contains("[4, 3]"), "{wrong}");
    assert!(error("model.norm.weight", &[1, 4]).contains("[4]"));
    assert!(error("lm_head.weight", &[3, 4]).contains("lm_head.weight: there is no such tensor"));

    let integers = open(
        &HEADER.replace("0.input_layernorm", "9.input_layernorm").replace("\"F16\"", "\"I16\""),
    );
    let name = "model.layers.9.input_layernorm.weight";
    let error = integers.tensor(name, &[4]).unwrap_err().to_string();
    assert!(error.contains("is stored as I16; supported are"), "{error}");
    assert_eq!(integers.tensors().count(), 2);

    // A head has 16 rows, so 8 rows are half a head.
    let gguf = Gguf::tiny().tensor("blk.0.attn_k.bias", &[8], TYPE_F32, &[0; 32]).bytes();
    let files = directory(&[("model.gguf", &gguf)]);
    let checkpoint = Checkpoint::open(files.path()).unwrap();
    let error = checkpoint.tensor("model.layers.0.self_attn.k_proj.bias", &[8]).unwrap_err();
    assert!(error.to_string().contains("blk.0.attn_k.bias: "), "{error}");
}

#[test]
fn configurations_that_lie() {
    refuses_config("", &["is empty"]);
    refuses_config("[]", &["is no JSON object"]);
    refuses_config(&"[".repeat(100_000), &["JSON: recursion limit"]);
    refuses_config("{}", &["model_type: is missing"]);
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
    ] {
        let quoted = format!("\"{field}\": ");
        let texts = [&*format!("config.json: {field}: ")];
        for lie in ["0, \"_\": ", "-4, \"_\": ", "1.5, \"_\": ", "\"4\", \"_\": ", "[], \"_\": "] {
            refuses_config_with(&quoted, &format!("{quoted}{lie}"), &texts);
        }
        refuses_config_with(&quoted, &format!("{quoted}18446744073709551615, \"_\": "), &texts);
    }
    refuses_config_with(
        "_heads\": 1",
        "_heads\": 3",
        &["num_key_value_heads: 3 does not divide 2"],
    );
    refuses_config_with("tion_heads\": 2", "tion_heads\": 3", &["num_attention_heads: 3 does not"]);
    refuses_config_with("{", "{\"head_dim\": 3,", &["head_dim: 3 is odd"]);
    refuses_config_with("{", "{\"head_dim\": 16777216,", &["head_dim: 2 heads of 16777216"]);
    refuses_config_with(
        "layers\": 1",
        "layers\": 9",
        &["number of layers: 9, but there are only 3"],
    );
    for eps in ["0", "-1e-5", "1", "1e999", "1e-60", "\"1e-5\""] {
        refuses_config_with("1e-5", eps, &["rms_norm_eps: "]);
    }
    refuses_config_with("10000.0", "0.5", &["rope_theta: 0.5"]);
    refuses_config_with("10000.0", "1e300", &["rope_theta: "]);
    refuses_config_with("silu", "gelu", &["hidden_act gelu; only silu"]);
    refuses_config_with("{", "{\"mlp_bias\": true,", &["mlp_bias"]);
    refuses_config_with("{", "{\"quantization_config\": {},", &["quantised by a method"]);
    refuses_config_with("[\"Llama", "[\"Gemma", &["GemmaForCausalLM", "Qwen3ForCausalLM"]);
    refuses_config_with("[\"LlamaForCausalLM\"]", "\"L\"", &["architectures: \"L\" is no list"]);
    let unnamed = CONFIG.replace("[\"LlamaForCausalLM\"]", "null").replace("\"llama\"", "\"gpt2\"");
    refuses_config(&unnamed, &["model_type gpt2 is not supported; supported are"]);
}

#[test]
fn rope_scaling_that_is_wrong_or_unknown() {
    let refuses = |scaling: &str, texts: &[&str]| {
        refuses_config_with("{", &format!("{{\"rope_scaling\": {scaling},"), texts);
    };
    refuses("7", &["rope_scaling: 7 is no object"]);
    for kind in ["longrope", "su"] {
        let scaling = format!(r#"{{"type": "{kind}", "short_factor": [1], "long_factor": [1]}}"#);
        refuses(&scaling, &[&format!("rope_scaling {kind}: two sets of frequencies"), "yarn"]);
    }
    refuses(
        r#"{"type": "ntk", "factor": 4}"#,
        &["rope_scaling ntk; supported are default, linear"],
    );
    refuses(r#"{"type": "yarn"}"#, &["rope_scaling.factor: is missing"]);
    refuses(r#"{"type": "yarn", "factor": 0}"#, &["rope_scaling: factor 0"]);
    refuses(r#"{"type": "yarn", "factor": "4"}"#, &["rope_scaling.factor: \"4\" is no number"]);
    let yarn = |fields: &str| format!(r#"{{"rope_type": "yarn", "factor": 4, {fields}}}"#);
    refuses(&yarn(r#""original_max_position_embeddings": 0"#), &["original context 0"]);
    refuses(&yarn(r#""attention_factor": -1"#), &["attention_factor -1"]);
    refuses(&yarn(r#""beta_slow": -1"#), &["beta_slow -1"]);
    refuses(&yarn(r#""rope_theta": 1.0"#), &["yarn needs a base above 1"]);
    refuses(r#"{"type": "dynamic"}"#, &["rope_scaling.factor: is missing"]);
    // A head of two values has one frequency, which does not depend on the base.
    refuses(r#"{"type": "dynamic", "factor": 2}"#, &["dynamic needs heads of more than 2"]);
    refuses(r#"{"rope_type": "linear"}"#, &["rope_scaling.factor: is missing"]);
    refuses(r#"{"type": "linear", "factor": 0}"#, &["rope_scaling: factor 0"]);
    refuses(r#"{"type": "linear", "factor": -2}"#, &["rope_scaling: factor -2"]);
    refuses(r#"{"full_attention": {"rope_type": "default"}}"#, &["differ between layers"]);
    refuses(r#"{"partial_rotary_factor": 0.5}"#, &["partial_rotary_factor 0.5"]);
    let llama3 = r#"{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
        "high_freq_factor": 4, "original_max_position_embeddings": 32}"#;
    refuses(&llama3.replace("factor\": 4", "factor\": 1"), &["is not below high_freq_factor"]);
    refuses(&llama3.replace("32", "0"), &["rope_scaling: original_max_position_embeddings 0"]);
}

#[test]
fn sliding_windows_in_some_layers() {
    let qwen = CONFIG.replace("LlamaFor", "Qwen2For").replace("layers\": 1", "layers\": 2");
    let with =
        |fields: &str| qwen.replacen('{', &format!("{{\"use_sliding_window\": true,{fields},"), 1);
    let half = with(r#""sliding_window": 8, "max_window_layers": 1"#);
    refuses_config(&half, &["a sliding window in 1 of 2 layers"]);
    let types = r#""sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]"#;
    refuses_config(&with(types), &["a sliding window in 1 of 2 layers"]);
    let short = r#""sliding_window": 8, "layer_types": ["full_attention"]"#;
    refuses_config(&with(short), &["layer_types: is no list of 2 layers"]);
    refuses_config(&with(r#""sliding_window": 0"#), &["sliding_window: 0 is not between"]);

    let window = |fields: &str| {
        let json = serde_json::from_str(&with(fields)).unwrap();
        galley_model::config::ModelConfig::from_hf_json(Path::new("config.json"), &json)
            .unwrap()
            .sliding_window
    };
    assert_eq!(window(r#""sliding_window": 8, "max_window_layers": 0"#), Some(8));
    assert_eq!(window(r#""sliding_window": 8, "max_window_layers": 2"#), None);
    assert_eq!(window(r#""sliding_window": null, "max_window_layers": 1"#), None);
}

const INDEX: &str = r#"{"weight_map": {"model.norm.weight": "a.safetensors"}}"#;
