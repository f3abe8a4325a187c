//! Files and folders with the wrong contents: the error names the contents and the remedy, once.

mod common;

use common::{CONFIG, Gguf, HEADER, directory, models, safetensors};
use galley_model::tokenizer::Tokenizer;
use galley_model::weights::Checkpoint;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 134\n";
const PAGE: &[u8] = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";

/// Opens the model and its tokenizer.
fn open(path: &Path) -> galley_model::Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    Tokenizer::open(path, checkpoint.gguf()).map(drop)
}

#[track_caller]
fn refused(files: &[(&str, &[u8])]) -> String {
    let directory = directory(files);
    let error = open(directory.path()).expect_err("must be refused");
    assert!(error.source().is_none(), "a chain of causes would print twice: {error}");
    error.to_string()
}

#[track_caller]
fn assert_refused(files: &[(&str, &[u8])], texts: &[&str]) {
    let error = refused(files);
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
}

/// Replaces the file `name` of a sound model by `bytes`. The model must be refused with `texts`.
#[track_caller]
fn assert_refused_with(name: &str, bytes: &[u8], texts: &[&str]) {
    let weights = safetensors(HEADER, 48);
    let tokenizer = fs::read(models().join("smollm2/tokenizer.json")).unwrap();
    let sound: [(&str, &[u8]); 4] = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &weights),
        ("tokenizer.json", &tokenizer),
        ("tokenizer_config.json", b"{}"),
    ];
    open(directory(&sound).path()).unwrap();
    assert_refused(&[&sound[..], &[(name, bytes)]].concat(), &[&[name, ": "], texts].concat());
}

#[test]
fn case_08_a_pointer_of_git_lfs_is_named_with_the_way_out() {
    let texts = ["this is a Git LFS pointer for 134 bytes", "`git lfs pull`", "`galley pull`"];
    for name in ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"] {
        assert_refused_with(name, LFS, &texts);
    }
    assert_refused(&[("model.gguf", LFS)], &texts);
    let pointer = directory(&[("model.gguf", LFS)]);
    assert!(open(&pointer.path().join("model.gguf")).unwrap_err().to_string().contains(texts[0]));
}

#[test]
fn a_page_or_message_of_a_server_is_named() {
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        assert_refused_with(
            name,
            PAGE,
            &["an HTML page with the title \"Sign in\"", "download it again"],
        );
        assert_refused_with(
            name,
            b"Entry not found",
            &["error message of a server", "Entry not found"],
        );
        let error = br#"{"error":"Access to model x/y is restricted"}"#;
        assert_refused_with(
            name,
            error,
            &["error message of a server", "is restricted", "HF_TOKEN"],
        );
    }
    assert_refused(&[("model.gguf", PAGE)], &["an HTML page"]);
}

#[test]
fn files_that_are_empty_or_cut_off_are_named() {
    for name in ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"] {
        assert_refused_with(name, b"", &["is empty", "download it again"]);
    }
    assert_refused(&[("model.gguf", b"")], &["is empty"]);
    assert_refused_with("model.safetensors", &[0; 4096], &["zeros only", "download it again"]);
    assert_refused_with(
        "config.json",
        b"{\"model_type\": \"lla",
        &["cut off", "download it again"],
    );
    let tokenizer = fs::read(models().join("smollm2/tokenizer.json")).unwrap();
    assert_refused_with("tokenizer.json", &tokenizer[..999], &["cut off", "download it again"]);
    let gguf = Gguf::tiny().bytes();
    assert_refused(&[("model.gguf", &gguf[..200])], &["download it again"]);
    assert_refused(&[("model.gguf", &gguf[..gguf.len() - 99])], &["cut off, so download it again"]);
    let weights = safetensors(HEADER, 48);
    assert_refused_with(
        "model.safetensors",
        &weights[..weights.len() - 1],
        &["cut off, so download it again"],
    );
    assert_refused(
        &[("config.json", CONFIG.as_bytes()), ("model.safetensors.part", b"x")],
        &["did not finish"],
    );
}

#[test]
fn text_in_another_encoding_is_named() {
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}{}".encode_utf16().flat_map(order).collect()
    };
    let marked = format!("\u{feff}{CONFIG}");
    for name in ["config.json", "tokenizer_config.json", "tokenizer.json"] {
        assert_refused_with(name, marked.as_bytes(), &["byte order mark", "UTF-8 without BOM"]);
        assert_refused_with(name, &utf16(u16::to_le_bytes), &["UTF-16", "UTF-8 without BOM"]);
        assert_refused_with(name, &utf16(u16::to_be_bytes), &["UTF-16", "UTF-8 without BOM"]);
        assert_refused_with(name, &utf16(u16::to_le_bytes)[2..], &["UTF-16", "UTF-8 without BOM"]);
    }
}

#[test]
fn weights_of_other_programs_are_named() {
    let config = ("config.json", CONFIG.as_bytes());
    for (name, text) in [
        ("pytorch_model.bin", "PyTorch's pickles"),
        ("consolidated.00.pth", "PyTorch's pickles"),
        ("model.onnx", "an ONNX model"),
        ("weights.npz", "NumPy arrays"),
        ("tf_model.h5", "TensorFlow or JAX"),
        ("flax_model.msgpack", "TensorFlow or JAX"),
        ("model.llamafile", "a program with a model in it"),
    ] {
        assert_refused(&[config, (name, b"x")], &[name, text, "GGUF"]);
    }
    for (bytes, text) in [
        (&b"tjgg\x03\0\0\0"[..], "a GGML file of 2023"),
        (b"lmgg\x03\0\0\0", "a GGML file of 2023"),
        (b"PK\x03\x04 rest", "a zip archive"),
        (b"\x80\x02\x8a\x0al\xfc", "a Python pickle"),
        (b"MZqFpD='\n", "a llamafile"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
    ] {
        assert_refused(&[("model.gguf", bytes)], &[text]);
        assert_refused_with("model.safetensors", bytes, &[text]);
    }
    assert_refused_with(
        "model.safetensors",
        b"GGUF\x03\0\0\0",
        &["a GGUF file under another name"],
    );
    let model_index = ("model_index.json", &b"{}"[..]);
    assert_refused(&[model_index], &["a pipeline of diffusers"]);
    let weights = safetensors(HEADER, 48);
    let meta = [("params.json", &b"{}"[..]), ("consolidated.safetensors", &weights[..])];
    assert_refused(&meta, &["config.json", "No such file", "Mistral's own format"]);
    assert_refused(&meta[1..], &["config.json", "put the model's config.json beside"]);
    assert_refused(&[config], &["only a configuration: the download did not finish"]);
}

#[test]
fn an_adapter_is_named_with_its_model() {
    let config = br#"{"base_model_name_or_path": "org/base", "peft_type": "LORA"}"#;
    let files = [("adapter_config.json", &config[..]), ("adapter_model.safetensors", b"x")];
    assert_refused(&files, &["a LoRA adapter for org/base", "merge_and_unload"]);
    // The adapter has a model's configuration beside it, or an unreadable configuration of its own.
    let files = [files[0], files[1], ("config.json", CONFIG.as_bytes())];
    assert_refused(&files, &["a LoRA adapter for org/base"]);
    assert_refused(&[("adapter_config.json", LFS), files[1]], &["a LoRA adapter, which"]);
    // A model with an adapter beside it opens as the model.
    let weights = safetensors(HEADER, 48);
    let model = [("model.safetensors", &weights[..]), ("config.json", CONFIG.as_bytes())];
    let directory = directory(&[&model[..], &files[..2]].concat());
    Checkpoint::open(directory.path()).unwrap();
}

#[test]
fn quantised_weights_are_named_by_their_method() {
    let settings = |json: &str| CONFIG.replacen('{', &format!("{{{json},"), 1);
    let tensor = |name: &str| {
        let name = format!("model.layers.0.self_attn.q_proj.{name}");
        HEADER.replacen(
            '{',
            &format!(r#"{{"{name}": {{"dtype": "U32", "shape": [0], "data_offsets": [0, 0]}},"#),
            1,
        )
    };
    for (json, name, text) in [
        (
            r#""quantization_config": {"quant_method": "gptq", "bits": 4}"#,
            "qweight",
            "GPTQ in 4 bits",
        ),
        (
            r#""quantization_config": {"quant_method": "awq", "bits": 4}"#,
            "qweight",
            "AWQ in 4 bits",
        ),
        (r#""quantization_config": {"quant_method": "fp8"}"#, "weight", "FP8"),
        (
            r#""quantization_config": {"quant_method": "compressed-tensors"}"#,
            "weight_packed",
            "compressed-tensors",
        ),
        (
            r#""quantization_config": {"quant_method": "bitsandbytes"}"#,
            "weight.absmax",
            "bitsandbytes",
        ),
        (r#""quantization_config": {"quant_method": "spqr"}"#, "weight", "spqr"),
        (
            r#""quantization": {"group_size": 64, "bits": 4}"#,
            "weight",
            "a method it does not name in 4 bits",
        ),
        (r#""x": 0"#, "weight_packed", "compressed-tensors"),
        (r#""x": 0"#, "weight.absmax", "bitsandbytes"),
    ] {
        let (config, weights) = (settings(json), safetensors(&tensor(name), 48));
        let files = [("config.json", config.as_bytes()), ("model.safetensors", &weights[..])];
        assert_refused(
            &files,
            &[&format!("quantised by {text}"), "take the model that was quantised, or a GGUF"],
        );
    }
    let mlx = HEADER.replacen(
        '{',
        r#"{"lm_head.weight": {"dtype": "U32", "shape": [0], "data_offsets": [0, 0]},
            "lm_head.scales": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]},
            "lm_head.biases": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]},"#,
        1,
    );
    let config = settings(r#""quantization": {"group_size": 64, "bits": 4}"#);
    let weights = safetensors(&mlx, 48);
    let files = [("config.json", config.as_bytes()), ("model.safetensors", &weights[..])];
    assert_refused(&files, &["quantised by MLX in 4 bits"]);
}

#[test]
fn a_path_beside_the_model_says_where_the_model_is() {
    let weights = safetensors(HEADER, 48);
    let model = directory(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &weights)]);
    for name in ["config.json", "model.safetensors.index.json"] {
        fs::write(model.path().join(name), CONFIG).unwrap();
        let error = open(&model.path().join(name)).unwrap_err().to_string();
        assert!(error.contains("one file of a model: name its folder, "), "{error}");
    }
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(cache.path().join("blobs")).unwrap();
    fs::write(snapshot.join("config.json"), CONFIG).unwrap();
    let error = open(cache.path()).unwrap_err().to_string();
    assert!(error.contains("the model lies in the folder snapshots/0123abcd of it"), "{error}");

    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("model.safetensors")).unwrap();
    fs::write(outer.path().join("config.json"), CONFIG).unwrap();
    let error = open(outer.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: file: is not a regular file"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_link_to_nothing_is_named() {
    let directory = directory(&[("config.json", CONFIG.as_bytes())]);
    let gone = directory.path().join("gone");
    std::os::unix::fs::symlink(&gone, directory.path().join("model.safetensors")).unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("a link to a file that is gone"), "{error}");
}

/// The variable with the folder that the test below opens in a process of an unprivileged user.
const CLOSED: &str = "GALLEY_TEST_CLOSED_FOLDER";

#[test]
#[cfg(unix)]
fn a_folder_without_search_permission_is_named() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    if let Some(path) = std::env::var_os(CLOSED) {
        let error = open(Path::new(&path)).unwrap_err();
        println!("refused: {error}");
        return;
    }
    let weights = safetensors(HEADER, 48);
    let model = directory(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &weights)]);
    let open_to_all =
        |mode: u32| fs::set_permissions(model.path(), fs::Permissions::from_mode(mode));
    open_to_all(0o644).unwrap();
    // Root may search every folder, so the process runs as another user.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_folder_without_search_permission_is_named", "--exact", "--nocapture"]);
    command.env(CLOSED, model.path());
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output();
    open_to_all(0o755).unwrap();
    let Ok(output) = output else {
        println!("skipped: no other user may run this program");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let closed = format!(
        "the folder {} may not be searched by this user: `chmod u+rx` it",
        model.path().display()
    );
    assert!(text.contains(&closed), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("ermission denied").count(), 1, "{text}");
}
