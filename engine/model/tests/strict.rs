//! A defect in a part of a checkpoint that the model does not need is never an error. For each
//! case, the same defect in a needed part is an error.

mod common;

use common::models;
use galley_model::weights::{Checkpoint, TensorRef};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A copy of a tiny model's directory, which the test may change.
fn copy(name: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(models().join(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("reference.safetensors") {
            continue;
        }
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

fn values(tensor: &TensorRef<'_>) -> Vec<f32> {
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    let rows = values.chunks_mut(tensor.cols());
    rows.enumerate().for_each(|(i, row)| tensor.read_row(i, row));
    values
}

/// The directory must open as the tiny model of this name: the same configuration and tensors.
#[track_caller]
fn assert_is(directory: &Path, name: &str) {
    let sound = Checkpoint::open(&models().join(name)).unwrap();
    let found = Checkpoint::open(directory).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.config(), sound.config());
    for (name, tensor) in sound.tensors() {
        let shape = match tensor.rows() {
            1 => vec![tensor.cols()],
            rows => vec![rows, tensor.cols()],
        };
        let other = found.tensor(name, &shape).unwrap_or_else(|error| panic!("{error}"));
        assert!(values(&other) == values(&tensor), "{name}");
    }
}

#[track_caller]
fn assert_refused(directory: &Path, texts: &[&str]) {
    let error = Checkpoint::open(directory).unwrap_err().to_string();
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
}

/// Changes header and data of a safetensors file.
fn edit(path: &Path, change: impl Fn(&mut Map<String, Value>, &mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    change(&mut header, &mut data);
    fs::write(path, written(&Value::Object(header).to_string(), &data)).unwrap();
}

fn written(header: &str, data: &[u8]) -> Vec<u8> {
    [&common::string(header)[..], data].concat()
}

fn edit_json(path: &Path, change: impl Fn(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

#[test]
fn case_07_a_stale_index_is_ignored() {
    let directory = copy("smollm2");
    let stale = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00009.safetensors"}}"#;
    for index in [stale, "{}", "no JSON", "", "version https://git-lfs.github.com/spec/v1\n"] {
        fs::write(directory.path().join(INDEX), index).unwrap();
        assert_is(directory.path(), "smollm2");
    }
    fs::remove_file(directory.path().join(SINGLE)).unwrap();
    assert!(Checkpoint::open(directory.path()).is_err(), "an index is no weights");
}

#[test]
fn case_07_an_index_says_which_files_there_are_and_no_more() {
    let directory = copy("llama3");
    let index = directory.path().join(INDEX);
    // Tensors in no file, in the wrong file, and in a missing file that the model does not need.
    edit_json(&index, |index| {
        index["weight_map"]["model.layers.9.mtp.weight"] =
            "model-00009-of-00009.safetensors".into();
        index["weight_map"]["vision.proj.weight"] = SHARDS[0].into();
        index["weight_map"]["model.norm.weight"] = SHARDS[0].into();
    });
    assert_is(directory.path(), "llama3");
    for broken in ["", "{\"weight_map\": {\"a\"", "{\"weight_map\": {\"a\": \"../b\"}}", "<html>"] {
        fs::write(&index, broken).unwrap();
        assert_is(directory.path(), "llama3");
    }
}

#[test]
fn case_07_a_shard_that_the_model_needs_is_missed() {
    let directory = copy("llama3");
    fs::remove_file(directory.path().join(SHARDS[1])).unwrap();
    let text = "model-00002-of-00002.safetensors is not there: the download did not finish";
    assert_refused(directory.path(), &[text]);
    fs::remove_file(directory.path().join(INDEX)).unwrap();
    assert_refused(directory.path(), &[text]);
    fs::write(directory.path().join(SHARDS[1]), b"").unwrap();
    assert_refused(directory.path(), &["there is no such tensor, but", SHARDS[1], "is empty"]);
}

#[test]
fn case_15_shards_without_an_index_load() {
    let directory = copy("llama3");
    fs::remove_file(directory.path().join(INDEX)).unwrap();
    assert_is(directory.path(), "llama3");
    // Any shard opens the whole model.
    assert_is(&directory.path().join(SHARDS[1]), "llama3");
    // Files of other programs beside the shards, some of them unreadable.
    let consolidated = r#"{"norm.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
    for (name, bytes) in [
        ("consolidated.safetensors", written(consolidated, &[0; 4])),
        ("consolidated-00001-of-00003.safetensors", b"broken".to_vec()),
        ("optimizer.safetensors", b"broken".to_vec()),
        ("adapter_model.safetensors", b"broken".to_vec()),
        ("other.safetensors", b"broken".to_vec()),
        ("training.bin", b"broken".to_vec()),
    ] {
        fs::write(directory.path().join(name), bytes).unwrap();
        assert_is(directory.path(), "llama3");
    }
    // A single file may have any name.
    let single = copy("smollm2");
    let renamed = single.path().join("model.bf16.safetensors");
    fs::rename(single.path().join(SINGLE), renamed).unwrap();
    assert_is(single.path(), "smollm2");
}

#[test]
fn a_tensor_in_two_files() {
    let directory = copy("llama3");
    let [first, second] = SHARDS.map(|name| directory.path().join(name));
    fs::copy(&second, directory.path().join("copy.safetensors")).unwrap();
    assert_is(directory.path(), "llama3");
    fs::remove_file(directory.path().join(INDEX)).unwrap();
    assert_is(directory.path(), "llama3");
    // A tensor that the model does not need may differ between files.
    for (path, value) in [(&first, 1), (&second, 2)] {
        edit(path, |header, data| {
            let end = data.len();
            header.insert(
                "extra".into(),
                json!({"dtype": "U8", "shape": [1], "data_offsets": [end, end + 1]}),
            );
            data.push(value);
        });
    }
    assert_is(directory.path(), "llama3");
    edit(&directory.path().join("copy.safetensors"), |_, data| {
        data.iter_mut().for_each(|byte| *byte ^= 1)
    });
    assert_refused(directory.path(), &[".safetensors too, with other values: remove the file"]);
}

#[test]
fn tensors_that_the_model_does_not_need_may_be_anything() {
    let directory = copy("smollm2");
    let path = directory.path().join(SINGLE);
    edit(&path, |header, data| {
        let end = data.len();
        for (name, tensor) in [
            (
                "model.layers.0.self_attn.rotary_emb.inv_freq",
                json!({"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}),
            ),
            (
                "model.layers.61.mtp.weight",
                json!({"dtype": "F4_E2M1", "shape": [3], "data_offsets": [end, end + 4]}),
            ),
            (
                "visual.patch_embed.weight",
                json!({"dtype": "F32", "shape": [3], "data_offsets": [end, end + 4]}),
            ),
            (
                "beyond",
                json!({"dtype": "F32", "shape": [1_u64 << 40], "data_offsets": [0, 1_u64 << 42]}),
            ),
            ("backwards", json!({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]})),
            (
                "huge",
                json!({"dtype": "F32", "shape": [u64::MAX, u64::MAX], "data_offsets": [0, 4]}),
            ),
            ("overlap", json!({"dtype": "U8", "shape": [end], "data_offsets": [0, end]})),
            ("odd", json!({"dtype": 7, "shape": "x"})),
            ("text", json!("a description")),
            ("nothing", json!({"dtype": "F32", "shape": [0], "data_offsets": [end, end]})),
        ] {
            header.insert(name.into(), tensor);
        }
        header.insert("__metadata__".into(), json!({"format": "pt", "steps": 7, "loss": null}));
        // Four bytes belong to the first tensor; two bytes belong to none.
        data.extend([0; 6]);
    });
    assert_is(directory.path(), "smollm2");
    let sound = Checkpoint::open(&path).unwrap();
    assert!(sound.tensor("beyond", &[1 << 40]).unwrap_err().to_string().contains("cut off"));

    // Bytes that are not UTF-8, and a repeated name.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(13).position(|window| window == b"a description").unwrap();
    bytes[at..at + 13].copy_from_slice(b"\xe9\", \"odd\": \"x");
    fs::write(&path, bytes).unwrap();
    assert_is(directory.path(), "smollm2");
}

#[test]
fn tensors_that_the_model_needs_may_not() {
    let directory = copy("smollm2");
    let path = directory.path().join(SINGLE);
    let sound = fs::read(&path).unwrap();
    let norm = "model.norm.weight";
    for (change, text) in [
        (
            json!({"dtype": "F8_E4M3", "shape": [96], "data_offsets": [0, 96]}),
            "is stored as F8_E4M3",
        ),
        (json!({"dtype": "F32", "shape": [97], "data_offsets": [0, 384]}), "has 384 bytes of data"),
        (json!({"dtype": "F32", "shape": [96], "data_offsets": [4, 388]}), "overlaps"),
        (
            json!({"dtype": "F32", "shape": [96], "data_offsets": [1 << 30, (1 << 30) + 384]}),
            "cut off",
        ),
        (json!({"dtype": "F32", "shape": [96]}), "data_offsets null is no list of sizes"),
        (json!("a description"), "dtype null is no name of a type"),
    ] {
        edit(&path, |header, _| drop(header.insert(norm.into(), change.clone())));
        assert_refused(directory.path(), &["model.safetensors: ", norm, text]);
        fs::write(&path, &sound).unwrap();
    }
}

#[test]
fn a_head_beside_a_tied_embedding() {
    let directory = copy("smollm2");
    let path = directory.path().join(SINGLE);
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let is_tied = || Checkpoint::open(directory.path()).unwrap().config().tie_embeddings;
    // In turn: the same matrix in the same place, a copy in another place, and another matrix.
    edit(&path, |header, _| drop(header.insert(head.into(), header[embedding].clone())));
    assert_is(directory.path(), "smollm2");
    let offsets = |header: &Map<String, Value>| {
        let offsets = &header[embedding]["data_offsets"];
        [0, 1].map(|i| offsets[i].as_u64().unwrap() as usize)
    };
    edit(&path, |header, data| {
        let [start, end] = offsets(header);
        let copied = data[start..end].to_vec();
        header[head]["data_offsets"] = json!([data.len(), data.len() + copied.len()]);
        data.extend(copied);
    });
    assert_is(directory.path(), "smollm2");
    edit(&path, |_, data| *data.last_mut().unwrap() ^= 1);
    assert!(!is_tied(), "two matrices that differ are both used");
    // Either of the two tied tensors suffices.
    edit(&path, |header, _| drop(header.remove(embedding)));
    assert!(is_tied());
    assert!(Checkpoint::open(directory.path()).unwrap().has_tensor(embedding));

    let directory = copy("smollm2");
    edit_json(&directory.path().join("config.json"), |json| {
        json["tie_word_embeddings"] = false.into()
    });
    assert!(Checkpoint::open(directory.path()).unwrap().config().tie_embeddings);
}

#[test]
fn a_vocabulary_count_that_differs() {
    for size in [json!(1), json!(300), json!(1_u64 << 40), json!(null), json!("many")] {
        let directory = copy("smollm2");
        edit_json(&directory.path().join("config.json"), |json| json["vocab_size"] = size.clone());
        assert_is(directory.path(), "smollm2");
    }
}

#[test]
fn the_weights_say_whether_they_are_quantised() {
    let directory = copy("smollm2");
    let settings = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    edit_json(&directory.path().join("config.json"), |json| {
        json["quantization_config"] = settings.clone()
    });
    assert_is(directory.path(), "smollm2");
    let name = "model.layers.1.mlp.up_proj.weight";
    edit(&directory.path().join(SINGLE), |header, _| header[name]["dtype"] = "U8".into());
    assert_refused(directory.path(), &["config.json", "quantised by bitsandbytes"]);
}

#[test]
fn biases_that_are_zero_add_nothing() {
    let directory = copy("smollm2");
    let (path, config) = (directory.path().join(SINGLE), directory.path().join("config.json"));
    let add = |name: &'static str, length: usize, value: u8| {
        edit(&path, |header, data| {
            let (start, end) = (data.len(), data.len() + 2 * length);
            header.insert(
                name.into(),
                json!({"dtype": "BF16", "shape": [length], "data_offsets": [start, end]}),
            );
            data.resize(end, value);
        });
    };
    add("model.layers.0.self_attn.o_proj.bias", 96, 0);
    add("model.layers.1.mlp.up_proj.bias", 64, 1);
    // With attention_bias false, transformers has no such parameters.
    assert_is(directory.path(), "smollm2");
    edit_json(&config, |json| json["attention_bias"] = true.into());
    assert!(Checkpoint::open(directory.path()).is_ok());
    add("model.layers.1.self_attn.o_proj.bias", 96, 1);
    assert_refused(directory.path(), &["model.layers.1.self_attn.o_proj.bias: only queries"]);
    edit_json(&config, |json| json["attention_bias"] = false.into());
    assert_is(directory.path(), "smollm2");
}
