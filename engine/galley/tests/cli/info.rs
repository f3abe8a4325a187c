//! `galley info`, and the formats of weights that it reports.

#[path = "../../../model/tests/common/edit.rs"]
pub(crate) mod edit;

use crate::{galley, json, tiny};
use edit::GgufCopy;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A tiny model with a quantised embedding and one quantised query matrix of two.
fn quantised() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    let copy = GgufCopy::of(&tiny("smollm2.gguf"));
    copy.with_q8_0("token_embd.weight").with_q8_0("blk.0.attn_q.weight").write(&path);
    (folder, path)
}

fn info(model: &Path) -> Value {
    json(&galley(&["info", model.to_str().expect("UTF-8"), "--json"]))
}

fn text(model: &Path) -> String {
    let output = galley(&["info", model.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn fingerprint(model: &Path, extra: &[&str]) -> String {
    let model = model.to_str().expect("UTF-8");
    let args = ["run", "-m", model, "-p", "some text", "--max-tokens", "2", "--json"];
    let run = json(&galley(&[&args[..], extra].concat()));
    run["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

#[test]
fn info_says_what_a_model_is() {
    let info = info(&tiny("qwen3"));
    assert_eq!(info["family"], "Qwen3");
    assert_eq!(info["head_dim"], 32);
}

/// The JSON of one tensor of a type.
fn stored(name: &str, n_weights: usize, file_bytes: usize) -> Value {
    json!({"type": name, "tensors": 1, "weights": n_weights, "file_bytes": file_bytes})
}

#[test]
fn info_lists_storage_types_by_kind_of_tensor() {
    let (_folder, model) = quantised();
    let info = info(&model);
    let types = |kind: &str| {
        let kinds = info["weight_types"].as_array().expect("kinds");
        let found = kinds.iter().find(|of| of["kind"] == kind).expect("a kind");
        found["types"].clone()
    };
    let embedding = 288 * 96;
    assert_eq!(types("embedding"), json!([stored("Q8_0", embedding, embedding / 32 * 34)]));
    let q = 96 * 96;
    assert_eq!(types("q"), json!([stored("F16", q, 2 * q), stored("Q8_0", q, q / 32 * 34)]));
    let text = text(&model);
    for part in ["Q8_0: embedding\n", "1 F16, 1 Q8_0: q\n", "with --weights bf16"] {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn info_gives_the_bytes_of_weights_in_the_file_and_packed() {
    let number = |info: &Value, key: &str| info[key].as_f64().expect("a number");
    let plain = info(&tiny("smollm2"));
    assert_eq!(number(&plain, "bytes_per_weight_file"), 2.0, "bf16");
    let packed = number(&plain, "bytes_per_weight_packed");
    assert!((1.9..2.5).contains(&packed), "bf16 again, without norms and with padding: {packed}");
    assert!(!text(&tiny("smollm2")).contains("--weights bf16"), "there is nothing to expand");
    let (_folder, model) = quantised();
    let smaller = info(&model);
    let packed_bytes = |info: &Value| number(info, "weight_bytes_packed");
    assert!(packed_bytes(&smaller) < 0.9 * packed_bytes(&plain), "{smaller} {plain}");
    let types = smaller["weight_types"].as_array().expect("kinds").iter();
    let types = types.flat_map(|kind| kind["types"].as_array().expect("types"));
    let file_bytes: f64 = types.map(|stored| number(stored, "file_bytes")).sum();
    assert_eq!(number(&smaller, "weight_bytes_file"), file_bytes);
}

/// The cache is sized by the packed bytes before a model is loaded.
#[test]
fn packed_bytes_are_those_of_a_loaded_model() {
    let (_folder, model) = quantised();
    for model in [&model, &tiny("smollm2.gguf"), &tiny("llama3")] {
        let expected = info(model)["weight_bytes_packed"].as_f64().expect("a number");
        let path = model.to_str().expect("UTF-8");
        let run = json(&galley(&["run", "-m", path, "-p", "x", "--max-tokens", "1", "--json"]));
        let loaded = run["weight_bytes"].as_f64().expect("a number");
        assert!((0.9..1.1).contains(&(expected / loaded)), "{path}: {expected} and {loaded}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn info_says_whether_huge_pages_are_there() {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let (json, text) = (info(&tiny("qwen3")), text(&tiny("qwen3")));
    let Ok(setting) = setting else {
        assert_eq!((&json["huge_pages"], text.contains("huge pages")), (&Value::Null, false));
        return;
    };
    let reported = json["huge_pages"].as_str().expect("a setting");
    assert!(setting.contains(&format!("[{reported}]")), "{reported} of {setting}");
    assert!(text.contains(&format!("huge pages      {reported}: ")), "{text}");
}

#[test]
fn the_fingerprint_names_the_formats_of_weights() {
    let (_folder, model) = quantised();
    let native = fingerprint(&model, &[]);
    assert_eq!(info(&model)["fingerprint"], native);
    for (extra, part) in [
        (&[][..], "-native/model-"),
        (&["--weights", "native"], "-native/model-"),
        (&["--weights", "bf16"], "-bf16/model-"),
        (&["--weights", "q8"], "-q8/model-"),
        (&["--weights", "q4"], "-q4/model-"),
        (&["--dtype", "f32"], "-f32/model-"),
        (&["--dtype", "f32", "--weights", "native"], "-native-f32/model-"),
    ] {
        let name = fingerprint(&model, extra);
        assert!(name.contains(part), "{extra:?}: no {part} in {name}");
    }
    // A file of floats has nothing that would stay in blocks.
    let plain = fingerprint(&tiny("smollm2"), &[]);
    assert!(plain.contains("-bf16/model-"), "{plain}");
    assert_eq!(info(&tiny("smollm2"))["fingerprint"], plain);
}

#[test]
#[cfg(feature = "emulate")]
fn a_gpu_has_one_arithmetic_for_all_files() {
    let (_folder, model) = quantised();
    let on_gpu = |extra: &[&str]| fingerprint(&model, &[&["--device", "emulated"], extra].concat());
    let native = on_gpu(&[]);
    assert!(native.contains("-bf16/model-"), "{native}");
    assert_eq!(on_gpu(&["--weights", "bf16"]), native);
}
