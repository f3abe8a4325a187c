//! GGUF files with defects in parts that the model does not need, and models in several files.

mod common;

use common::{ARRAY, BOOL, F32, Gguf, STRING, TYPE_F32, TYPE_Q8_0, directory};
use galley_model::weights::{Checkpoint, TensorRef};
use std::fs;
use std::path::Path;

/// Bits of the values, because NaN does not equal itself.
fn values(tensor: &TensorRef<'_>) -> Vec<u32> {
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    let rows = values.chunks_mut(tensor.cols());
    rows.enumerate().for_each(|(i, row)| tensor.read_row(i, row));
    values.into_iter().map(f32::to_bits).collect()
}

/// The file must open as [`Gguf::tiny`], with the same configuration and tensors.
#[track_caller]
fn assert_is_tiny(path: &Path) {
    let sound = directory(&[("model.gguf", &Gguf::tiny().bytes())]);
    let sound = Checkpoint::open(sound.path()).unwrap();
    let found = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.config(), sound.config());
    let found: std::collections::BTreeMap<_, _> = found.tensors().collect();
    for (name, tensor) in sound.tensors() {
        assert!(values(&found[name]) == values(&tensor), "{name}");
    }
}

#[track_caller]
fn assert_bytes_are_tiny(bytes: &[u8]) {
    assert_is_tiny(directory(&[("model.gguf", bytes)]).path());
}

#[track_caller]
fn refused(files: &[(&str, &[u8])]) -> String {
    Checkpoint::open(directory(files).path()).unwrap_err().to_string()
}

#[test]
fn case_11_metadata_that_is_never_read() {
    let latin = [&4_u64.to_le_bytes()[..], b"caf\xe9"].concat();
    let latin_list = [&STRING.to_le_bytes()[..], &1_u64.to_le_bytes(), &latin].concat();
    let list =
        |kind: u32, item: &[u8]| [&kind.to_le_bytes()[..], &1_u64.to_le_bytes(), item].concat();
    let nested = list(ARRAY, &list(ARRAY, &list(F32, &[0; 4])));
    for file in [
        Gguf::tiny().pair("general.description", STRING, &latin),
        Gguf::tiny().pair("general.tags", ARRAY, &latin_list),
        Gguf::tiny().pair("general.flag", BOOL, &[2]),
        Gguf::tiny().pair("general.flags", ARRAY, &list(BOOL, &[7])),
        Gguf::tiny().pair("general.sizes", ARRAY, &list(11, &(-1_i64).to_le_bytes())),
        Gguf::tiny().pair("general.nested", ARRAY, &nested),
        Gguf::tiny().pair("general.infinite", F32, &f32::INFINITY.to_le_bytes()),
        Gguf::tiny().pair("", F32, &[0; 4]),
        Gguf::tiny().u32("llama.block_count", 1),
        // Of a repeated key, the first value counts.
        Gguf::tiny().u32("llama.block_count", 7),
        Gguf::tiny().text("general.architecture", "gemma"),
        // The rows of the embedding decide the size of the vocabulary.
        Gguf::tiny().u32("llama.vocab_size", 2),
        Gguf::tiny().u32("llama.vocab_size", 32_000),
        Gguf::tiny().text("llama.vocab_size", "three"),
    ] {
        assert_bytes_are_tiny(&file.bytes());
    }
}

#[test]
fn case_11_tensors_that_are_never_read() {
    let extra = |dims: &[u64], kind, offset| {
        Gguf::tiny().tensor_at("v.patch_embd.weight", dims, kind, offset, &[0; 64])
    };
    for file in [
        extra(&[256], 16, 0),
        extra(&[256], 137, 0),
        extra(&[], TYPE_F32, 0),
        extra(&[1; 6], TYPE_F32, 0),
        extra(&[4, 0], TYPE_F32, 0),
        extra(&[31], TYPE_Q8_0, 0),
        extra(&[1 << 40, 1 << 40], TYPE_F32, 0),
        extra(&[1 << 40], TYPE_F32, 0),
        extra(&[1], TYPE_F32, 1 << 62),
        extra(&[1], TYPE_F32, 4),
        extra(&[8], TYPE_F32, 32),
        extra(&[8], TYPE_F32, 0).tensor("v.patch_embd.weight", &[8], TYPE_F32, &[0; 32]),
        // A layer after the last, such as a head for multi-token prediction.
        Gguf::tiny().tensor("blk.1.nextn.eh_proj.weight", &[256], 11, &[0; 110]),
        Gguf::tiny().tensor("blk.0.attn_output.bias", &[32], TYPE_F32, &[0; 128]),
    ] {
        assert_bytes_are_tiny(&file.bytes());
    }
    assert_bytes_are_tiny(&[Gguf::tiny().bytes(), b"trailing bytes".to_vec()].concat());
}

#[test]
fn a_type_that_galley_does_not_read_is_named() {
    for (kind, name) in [
        (16, "IQ2_XXS"),
        (23, "IQ4_XS"),
        (10, "Q2_K"),
        (39, "MXFP4"),
        (31, "Q4_0_4_4"),
        (4, "Q4_2"),
    ] {
        let file = Gguf::tiny().tensor("blk.0.ffn_norm.weight", &[256], kind, &[0; 512]);
        let error = refused(&[("model.gguf", &file.bytes())]);
        let text = format!(
            "tensor blk.0.ffn_norm.weight is stored as {name}; Galley reads F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, \
             Q5_1, Q4_K, Q5_K, Q6_K and IQ4_NL: take another file of the model, such as Q4_K_M or Q8_0"
        );
        assert!(error.contains(&text), "{error}");
    }
    let file = Gguf::tiny().tensor("blk.0.ffn_norm.weight", &[256], 144, &[0; 512]);
    let error = refused(&[("model.gguf", &file.bytes())]);
    assert!(error.contains("ggml type 144, which llama.cpp does not have"), "{error}");
}

/// The small model in two files. The second file has two of its tensors.
fn split(names: [&'static str; 2]) -> Vec<(&'static str, Vec<u8>)> {
    let number = |file: Gguf, number: u32| file.u32("split.no", number).u32("split.count", 2);
    let norm: Vec<u8> = (0..32_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let rest = Gguf::default().tensor("output_norm.weight", &[32], TYPE_F32, &norm).tensor(
        "rope_freqs.weight",
        &[8],
        TYPE_F32,
        &1.5_f32.to_le_bytes().repeat(8),
    );
    let mut first = Gguf::tiny();
    first.drop_tensors(2);
    vec![(names[0], number(first, 0).bytes()), (names[1], number(rest, 1).bytes())]
}

#[test]
fn a_split_model_is_opened_by_any_of_its_files() {
    let names = ["tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf"];
    let files = split(names);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let whole = directory(&files);
    assert_is_tiny(whole.path());
    for name in names {
        assert_is_tiny(&whole.path().join(name));
    }
    let error = refused(&files[..1]);
    assert!(
        error.contains("tiny-00002-of-00002.gguf: file: part 2 of 2 of a split model is missing"),
        "{error}"
    );
    let error = refused(&[("model.gguf", files[0].1)]);
    assert!(
        error.contains("one of the 2 files of a split model") && error.contains("--merge"),
        "{error}"
    );
    let other = files[0].1;
    let error = refused(&[(names[0], other), (names[1], other)]);
    assert!(error.contains("is in an earlier part"), "{error}");
}

#[test]
fn a_projector_is_no_second_model() {
    let tiny = Gguf::tiny().bytes();
    let files = directory(&[("model-Q8_0.gguf", &tiny), ("mmproj-model-f16.gguf", b"GGUF")]);
    assert_is_tiny(files.path());
    fs::write(files.path().join("other.gguf"), &tiny).unwrap();
    let error = Checkpoint::open(files.path()).unwrap_err().to_string();
    assert!(error.contains("name the one to load: model-Q8_0.gguf, other.gguf"), "{error}");
}
