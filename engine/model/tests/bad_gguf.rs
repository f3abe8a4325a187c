//! GGUF files that are broken or have false sizes give an error that names the file and the key or
//! tensor. The false sizes exceed any address space, so an allocation of one would end the test.

mod common;

use common::{ARRAY, BOOL, F32, Gguf, TYPE_F32, TYPE_Q8_0, U32, U64, refuses, strings};

/// A tensor that the model needs and the small file does not have.
const NEEDED: &str = "blk.0.ffn_norm.weight";

#[track_caller]
fn refuses_gguf(bytes: &[u8], texts: &[&str]) {
    refuses(&[("model.gguf", bytes)], &[&["model.gguf: "], texts].concat());
}

#[test]
fn gguf_headers_that_lie() {
    let tiny = Gguf::tiny();
    let with = |version, n_tensors, n_pairs| tiny.bytes_with(version, n_tensors, n_pairs);
    refuses_gguf(b"GGML", &["nor a GGUF file"]);
    refuses_gguf(&with(1, 6, 10), &["GGUF version 1; versions 2 and 3"]);
    refuses_gguf(&with(3_u32.swap_bytes(), 6, 10), &["big-endian"]);
    refuses_gguf(&with(3, 1 << 60, 10), &["tensor count: says 1152921504606846976"]);
    refuses_gguf(&with(3, 6, 1 << 60), &["metadata count: says 1152921504606846976"]);
    refuses_gguf(&with(3, 60, 10), &["name of tensor "]);
    refuses_gguf(&with(3, 6, 11), &[": "]);

    let huge = (1_u64 << 60).to_le_bytes();
    let array = |kind: u32| [&kind.to_le_bytes()[..], &huge].concat();
    let pair = |kind, value: &[u8]| Gguf::default().pair("the.key", kind, value).bytes();
    refuses_gguf(&pair(common::STRING, &huge), &["the.key: says 1152921504606846976"]);
    for kind in [U32, F32, BOOL, common::STRING, ARRAY, U64] {
        refuses_gguf(&pair(ARRAY, &array(kind)), &["the.key: says 1152921504606846976"]);
    }
    refuses_gguf(&pair(ARRAY, &array(13)), &["the.key: is an array of unknown type 13"]);
    refuses_gguf(&pair(13, &huge), &["the.key: is of unknown type 13"]);
    let one_array = [ARRAY.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat();
    refuses_gguf(&pair(ARRAY, &one_array.repeat(9)), &["the.key: has arrays nested too deep"]);
    for alignment in [0, 3, 48] {
        let file = tiny.clone().u32("general.alignment", alignment).bytes();
        refuses_gguf(&file, &["general.alignment: must be a power of two"]);
    }
    let file = tiny.clone().u32("general.alignment", 1 << 31).bytes();
    refuses_gguf(&file, &["is not aligned to 2147483648"]);
}

#[test]
fn gguf_tensors_that_lie() {
    let tensor = |dims: &[u64], kind, offset| {
        Gguf::tiny().tensor_at(NEEDED, dims, kind, offset, &[0; 64]).bytes()
    };
    refuses_gguf(&tensor(&[1; 5], TYPE_F32, 0), &["blk.0.ffn_norm.weight: has 5 dimensions"]);
    refuses_gguf(
        &tensor(&[1 << 40, 1 << 40], TYPE_F32, 0),
        &["blk.0.ffn_norm.weight: F32 of shape", "impossible"],
    );
    refuses_gguf(
        &tensor(&[31], TYPE_Q8_0, 0),
        &[
            "blk.0.ffn_norm.weight: Q8_0 of shape [31] is impossible: rows are whole blocks of 32 weights",
        ],
    );
    refuses_gguf(
        &tensor(&[1 << 40], TYPE_F32, 0),
        &["blk.0.ffn_norm.weight: ", "beyond the end of the file"],
    );
    refuses_gguf(
        &tensor(&[1], TYPE_F32, 1 << 62),
        &["blk.0.ffn_norm.weight: ", "beyond the end of the file"],
    );
    refuses_gguf(
        &tensor(&[1], TYPE_F32, !31),
        &["blk.0.ffn_norm.weight: ", "beyond the end of the file"],
    );
    refuses_gguf(
        &tensor(&[1], TYPE_F32, 4),
        &["blk.0.ffn_norm.weight: offset 4 is not aligned to 32"],
    );
    refuses_gguf(
        &tensor(&[1], TYPE_F32, 32),
        &["blk.0.ffn_norm.weight: overlaps token_embd.weight"],
    );
    refuses_gguf(
        &tensor(&[256], 11, 0),
        &[
            "tensor blk.0.ffn_norm.weight is stored as Q3_K; Galley reads F32, F16, BF16, Q8_0, Q4_0, ",
            ", Q5_K, Q6_K and IQ4_NL: take",
        ],
    );
    let twice = Gguf::tiny().tensor("output_norm.weight", &[32], TYPE_F32, &[0; 128]).bytes();
    refuses_gguf(&twice, &["output_norm.weight: appears twice"]);
}

#[test]
fn gguf_metadata_that_lies() {
    let with = |from: &str, to: &str| {
        let mut bytes = Gguf::tiny().bytes();
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let tiny = Gguf::tiny;
    refuses_gguf(
        &with("general.arch", "general.march"[..12].into()),
        &["general.architecture: is missing"],
    );
    refuses_gguf(
        &with("llama", "gemma"),
        &["architecture gemma is not supported", "llama", "qwen3"],
    );
    refuses_gguf(&with("block_count", "block_bount"), &["llama.block_count: is missing"]);
    refuses_gguf(
        &with("_epsilon", "_epsilom"),
        &["llama.attention.layer_norm_rms_epsilon: is missing"],
    );
    refuses_gguf(&tiny().u32("llama.expert_count", 8).bytes(), &["llama.expert_count 8: mixture"]);
    refuses_gguf(&tiny().u32("split.count", 2).bytes(), &["one of the 2 files of a split model"]);
    refuses_gguf(&tiny().u32("llama.attention.key_length", 15).bytes(), &["key_length: 15 is odd"]);
    refuses_gguf(&tiny().u32("llama.rope.dimension_count", 8).bytes(), &["dimension_count of 8"]);
    let scaling = |kind| tiny().text("llama.rope.scaling.type", kind);
    refuses_gguf(&scaling("longrope").bytes(), &["scaling.type longrope: two sets of frequencies"]);
    refuses_gguf(&scaling("dynamic").bytes(), &["scaling.type dynamic; supported are none"]);
    let number =
        |file: Gguf, key: &str, value: f32| file.pair(key, F32, &value.to_le_bytes()).bytes();
    for value in [-2.0, f32::NAN, f32::INFINITY] {
        let file = number(tiny(), "llama.rope.scaling.factor", value);
        refuses_gguf(&file, &["llama.rope.scaling: factor"]);
    }
    let file = number(scaling("yarn"), "llama.rope.scaling.yarn_beta_fast", -1.0);
    refuses_gguf(&file, &["llama.rope.scaling: beta_fast -1"]);
    let file = number(scaling("yarn"), "llama.rope.scaling.yarn_ext_factor", 0.5);
    refuses_gguf(&file, &["yarn_ext_factor 0.5; only 1"]);
    let file = number(tiny(), "llama.rope.scaling.attn_factor", 1.2);
    refuses_gguf(&file, &["llama.rope.scaling.attn_factor 1.2"]);
    refuses_gguf(
        &tiny().u32("llama.rope.scaling.type", 1).bytes(),
        &["scaling.type: is no string"],
    );
    let per_layer = strings(&["1"]);
    let file = tiny().pair("llama.rope.freq_base", ARRAY, &per_layer).bytes();
    refuses_gguf(&file, &["llama.rope.freq_base: is no number"]);
    let bias = tiny().tensor("blk.0.attn_output.bias", &[32], TYPE_F32, &[1; 128]).bytes();
    refuses_gguf(&bias, &["o_proj.bias: only queries, keys and values"]);
    let mut factors = Gguf::tiny().bytes();
    let last = factors.len() - 32;
    factors[last..last + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    refuses_gguf(&factors, &["rope_freqs.weight: NaN"]);
}
