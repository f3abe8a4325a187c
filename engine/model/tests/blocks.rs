//! Quantised weights in GGUF files: their types, loading, and defects of blocks.

mod common;

use common::blocks::{self, MATRICES, Q4_0, Q8_0, TYPES, mixed};
use common::{TYPE_F32, directory, models, refuses};
use galley_backend::cpu::CpuConfig;
use galley_backend::{BlockFormat, Formats, OperandFormat, WeightFormat};
use galley_model::weights::{Checkpoint, Codec};
use galley_model::{LoadOptions, LoadedModel, ModelError};

fn open(file: &common::Gguf) -> Checkpoint {
    let directory = directory(&[("model.gguf", &file.bytes())]);
    Checkpoint::open(directory.path()).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads a file onto the CPU.
fn load(file: &common::Gguf, formats: Formats) -> Result<LoadedModel, ModelError> {
    let config = CpuConfig::default().n_threads(2).formats(formats);
    let options = LoadOptions::new(16, 4);
    let model = galley_model::load(&open(file), config, options, &mut |_, _| {})?;
    Ok(model.target().clone())
}

/// Weights of a format beside operands in bf16.
fn of_weights(weights: WeightFormat) -> Formats {
    let mut formats = Formats::BF16;
    formats.weights = weights;
    formats
}

fn unchanged(_: &str, _: &mut Vec<u8>) {}

#[test]
fn types_are_listed_by_kind() {
    let listed: Vec<(&str, String, usize, usize, usize)> = open(&blocks::file(mixed, unchanged))
        .weight_types()
        .iter()
        .flat_map(|kind| kind.types.iter().map(|stored| (kind.kind, *stored)))
        .map(|(kind, stored)| {
            let codec = stored.codec.to_string();
            (kind, codec, stored.n_tensors, stored.file_bytes, stored.n_weights)
        })
        .collect();
    let expected = [
        ("embedding", "Q6_K", 1, 3 * 210, 3 * 256),
        ("q", "Q4_K", 1, 256 * 144, 256 * 256),
        ("k", "Q5_K", 1, 128 * 176, 128 * 256),
        ("v", "Q8_0", 1, 128 * 8 * 34, 128 * 256),
        ("o", "Q4_0", 1, 256 * 8 * 18, 256 * 256),
        ("gate", "Q4_1", 1, 512 * 8 * 20, 512 * 256),
        ("up", "Q5_0", 1, 512 * 8 * 22, 512 * 256),
        ("down", "Q5_1", 1, 256 * 16 * 24, 512 * 256),
        ("output head", "IQ4_NL", 1, 3 * 8 * 18, 3 * 256),
        ("norms", "F32", 3, 3 * 1024, 3 * 256),
    ];
    let expected = expected.map(|(kind, codec, n_tensors, file_bytes, n_weights)| {
        (kind, codec.to_owned(), n_tensors, file_bytes, n_weights)
    });
    assert_eq!(listed, expected);
}

#[test]
fn types_of_several_layers_are_counted_by_type() {
    let qwen2 = Checkpoint::open(&models().join("qwen2")).expect("a model");
    let kinds = qwen2.weight_types();
    let names: Vec<_> = kinds.iter().map(|kind| kind.kind).collect();
    let matrices = ["embedding", "q", "k", "v", "o", "gate", "up", "down"];
    assert_eq!(names, [&matrices[..], &["norms", "biases"]].concat());
    let q = kinds[1].types[0];
    assert_eq!(kinds[1].types.len(), 1);
    assert_eq!((q.n_tensors, q.n_weights), (2, 2 * 64 * 64));
    assert_eq!(q.file_bytes, q.n_weights * q.codec.block_bytes());
    let bytes = kinds.iter().flat_map(|kind| &kind.types).map(|stored| stored.file_bytes);
    assert_eq!(bytes.sum::<usize>(), qwen2.weight_bytes());
}

#[test]
fn packed_bytes_follow_the_format_of_weights() {
    let packed = |checkpoint: &Checkpoint, weights| checkpoint.packed_bytes(of_weights(weights));
    let mixed = open(&blocks::file(mixed, unchanged));
    // The three rows of embedding and output head are padded to 32.
    let n_weights: usize = MATRICES.iter().map(|(_, cols, rows)| cols * rows.max(&32)).sum();
    let vocabulary = 2 * 32 * 256;
    assert!(mixed.has_blocks());
    let native: usize = MATRICES
        .iter()
        .map(|&(name, cols, rows)| blocks::mixed(name).format.packed_bytes(cols * rows.max(32)))
        .sum();
    assert_eq!(packed(&mixed, WeightFormat::Native), native);
    assert_eq!(packed(&mixed, WeightFormat::Bf16), 2 * n_weights);
    assert_eq!(packed(&mixed, WeightFormat::F32), 4 * n_weights);
    assert_eq!(packed(&mixed, WeightFormat::Q8), n_weights * 34 / 32);
    let q4 = (n_weights - vocabulary) * 18 / 32 + vocabulary * 34 / 32;
    assert_eq!(packed(&mixed, WeightFormat::Q4), q4);

    let floats = Checkpoint::open(&models().join("smollm2")).expect("a model");
    assert!(!floats.has_blocks());
    let bf16 = packed(&floats, WeightFormat::Bf16);
    assert_eq!(packed(&floats, WeightFormat::Native), bf16);
    let mut native = Formats::F32;
    native.weights = WeightFormat::Native;
    assert_eq!(floats.packed_bytes(native), 2 * bf16);
}

/// The cache is sized by the packed bytes before a model is loaded.
#[test]
fn packed_bytes_are_those_of_a_loaded_model() {
    let floats: [&[&str]; 5] =
        [&[], &["ffn_gate"], &["ffn_up"], &["ffn_gate", "ffn_up"], &["attn_k", "ffn_down"]];
    for of_floats in floats {
        let file = blocks::file_of(&MATRICES, |name, n_weights| {
            if of_floats.iter().any(|part| name.contains(part)) {
                return (TYPE_F32, 0.5_f32.to_le_bytes().repeat(n_weights));
            }
            (mixed(name).kind, mixed(name).blocks(n_weights))
        });
        for formats in [
            Formats::NATIVE,
            Formats::new(OperandFormat::F32, Some(WeightFormat::Native)).expect("a pair"),
            Formats::BF16,
            Formats::F32,
            of_weights(WeightFormat::Q8),
            of_weights(WeightFormat::Q4),
        ] {
            let loaded = load(&file, formats).unwrap_or_else(|error| panic!("{error}"));
            let packed = open(&file).packed_bytes(formats);
            assert_eq!(packed, loaded.weight_bytes, "{formats}, floats in {of_floats:?}");
        }
    }
}

/// Bounds of a step's time depend on these bytes.
#[test]
fn a_step_reads_all_weights_but_an_embedding_that_is_no_output_head() {
    let n_weights = 32 * 256;
    for (formats, of_embedding) in [
        (Formats::NATIVE, mixed("token_embd.weight").format.packed_bytes(n_weights)),
        (Formats::BF16, 2 * n_weights),
        (of_weights(WeightFormat::Q8), n_weights * 34 / 32),
        // Embeddings have 8-bit codes.
        (of_weights(WeightFormat::Q4), n_weights * 34 / 32),
    ] {
        let loaded = load(&blocks::file(mixed, unchanged), formats).expect("a model");
        let unread = loaded.weight_bytes - loaded.step_weight_bytes;
        assert_eq!(unread, of_embedding, "{formats}");
    }
    let tied = Checkpoint::open(&models().join("qwen2")).expect("a model");
    assert!(tied.config().tie_embeddings);
    let (config, options) = (CpuConfig::default().n_threads(1), LoadOptions::new(16, 4));
    let model = galley_model::load(&tied, config, options, &mut |_, _| {}).expect("a model");
    assert_eq!(model.target().step_weight_bytes, model.target().weight_bytes);
}

#[test]
fn files_of_every_type_load() {
    for formats in [Formats::NATIVE, Formats::BF16, Formats::F32] {
        load(&blocks::file(mixed, unchanged), formats).unwrap_or_else(|error| panic!("{error}"));
        for one in TYPES {
            let file = blocks::file(|_| one, unchanged);
            load(&file, formats).unwrap_or_else(|error| panic!("{}: {error}", one.format));
        }
    }
}

/// The defect is in block 1 of row 70 of the file: in the model, queries and keys have another order.
#[test]
fn a_scale_that_is_no_finite_number_is_refused_with_its_place() {
    let defects = [(0x7e00_u16, "NaN"), (0x7c00, "inf"), (0xfc00, "-inf")];
    for (i, one) in TYPES.iter().enumerate() {
        for (field, offset) in one.halves {
            let (bits, value) = defects[i % 3];
            let (tensor, cols, _) = MATRICES[1 + i % 7];
            let blocks_of_a_row = cols / one.format.scale_len();
            let block = blocks_of_a_row - 1;
            let file = blocks::file(
                |_| *one,
                |name, bytes| {
                    if name == tensor {
                        // A second defect in the next row.
                        for row in [70, 71] {
                            let at = (row * blocks_of_a_row + block) * one.bytes + offset;
                            bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                        }
                    }
                },
            );
            let text =
                format!("model.gguf: {tensor}: the {field} of block {block} of row 70 is {value}");
            for formats in [Formats::NATIVE, Formats::BF16, Formats::F32] {
                let error = load(&file, formats).expect_err("must be refused").to_string();
                assert!(error.ends_with(&text), "{text:?} is not at the end of: {error}");
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_off_in_its_last_tensor_is_refused() {
    for one in TYPES {
        let sound = blocks::file(|_| one, unchanged).bytes();
        let len = 3 * 256 / one.format.scale_len() * one.bytes;
        let padding = len.next_multiple_of(32) - len;
        for lost in [1, one.bytes, len] {
            let cut = &sound[..sound.len() - padding - lost];
            let text = "output.weight: ";
            refuses(&[("model.gguf", cut)], &[text, "beyond the end of the file", "cut off"]);
        }
    }
}

#[test]
fn a_tensor_of_another_type_than_its_bytes_is_refused() {
    // Bytes of Q4_0 that are said to be Q8_0 reach into the next tensor; those of the last one go
    // beyond the end of the file.
    for (tensor, text) in [
        ("blk.0.attn_v.weight", "blk.0.attn_output.weight: overlaps blk.0.attn_v.weight"),
        ("output.weight", "output.weight: 816 bytes at data offset"),
    ] {
        let of_file = |name: &str| if name == tensor { Q8_0 } else { Q4_0 };
        let file = blocks::file(of_file, |name, bytes| {
            if name == tensor {
                bytes.truncate(bytes.len() / 34 * 18);
            }
        });
        refuses(&[("model.gguf", &file.bytes())], &[text]);
    }
}

#[test]
fn rows_of_broken_blocks_are_refused() {
    for one in TYPES {
        let len = one.format.scale_len();
        let reason = |cols: usize| {
            format!(
                "blk.0.ffn_norm.weight: {} of shape [2, {cols}] is impossible: rows are whole blocks of {len} weights",
                one.format
            )
        };
        for cols in [len / 2, len + 1] {
            let dims = [cols as u64, 2];
            let file = common::Gguf::tiny()
                .tensor("blk.0.ffn_norm.weight", &dims, one.kind, &[0; 1024])
                .bytes();
            refuses(&[("model.gguf", &file)], &[&reason(cols)]);
        }
        let file = common::Gguf::tiny()
            .tensor("blk.0.ffn_norm.weight", &[1 << 40, 1 << 40], one.kind, &[0; 64])
            .bytes();
        let text = format!("blk.0.ffn_norm.weight: {} of shape", one.format);
        refuses(&[("model.gguf", &file)], &[&text, "is impossible"]);
    }
}

#[test]
fn codecs_know_their_blocks() {
    for one in TYPES {
        let codec = Codec::Blocks(one.format);
        assert_eq!(codec.block_bytes(), one.bytes, "{codec}");
        assert_eq!(codec.block_format(), Some(one.format));
    }
    assert_eq!(TYPES.map(|one| one.format), BlockFormat::ALL);
}
