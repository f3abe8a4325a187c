//! Sound checkpoints of every family and format.

mod common;

use common::models;
use galley_model::end_tokens::{EndSource, EndTokens};
use galley_model::{
    config::{Family, ModelConfig, RopeScaling},
    weights::{Checkpoint, Codec},
};
use std::{collections::BTreeMap, fs};

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&models().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn ends(tokens: &[(u32, EndSource)]) -> EndTokens {
    let mut ends = EndTokens::default();
    for &(id, source) in tokens {
        ends.add(id, source);
    }
    ends
}

#[test]
fn configurations_of_all_families() {
    let base = ModelConfig {
        family: Family::Llama,
        n_layers: 2,
        hidden_size: 64,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        intermediate_size: 80,
        vocab_size: 288,
        max_context: 256,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rope_freq_factors: None,
        sliding_window: None,
        qkv_bias: false,
        qk_norm: false,
        tie_embeddings: false,
        end_tokens: ends(&[(2, EndSource::Config)]),
    };
    let small = ModelConfig { hidden_size: 48, n_heads: 3, ..base.clone() };
    assert_eq!(*open("llama2").config(), ModelConfig { n_kv_heads: 3, ..small.clone() });
    assert_eq!(
        *open("mistral").config(),
        ModelConfig { family: Family::Mistral, n_kv_heads: 1, sliding_window: Some(24), ..small }
    );
    let llama3 = ModelConfig {
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 48.0,
        },
        tie_embeddings: true,
        end_tokens: ends(&[(0, EndSource::Config), (2, EndSource::Config)]),
        ..base.clone()
    };
    assert_eq!(*open("llama3").config(), llama3);
    let qwen2 = ModelConfig {
        family: Family::Qwen2,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        qkv_bias: true,
        tie_embeddings: true,
        ..base
    };
    assert_eq!(*open("qwen2").config(), qwen2);
    let qwen3 = ModelConfig {
        family: Family::Qwen3,
        n_heads: 3,
        n_kv_heads: 1,
        head_dim: 32,
        qkv_bias: false,
        qk_norm: true,
        ..qwen2
    };
    assert_eq!(*open("qwen3").config(), qwen3);
}

/// The two checkpoints hold the same numbers, exact in both formats. In the GGUF file, the rows of
/// queries and keys are reordered, and names differ.
#[test]
fn gguf_and_safetensors_are_the_same_model() {
    let (directory, gguf) = (open("smollm2"), open("smollm2.gguf"));
    let end_tokens = ends(&[(2, EndSource::Gguf("tokenizer.ggml.eos_token_id"))]);
    let expected = ModelConfig { end_tokens, ..directory.config().clone() };
    assert_eq!(*gguf.config(), expected);
    assert!(directory.gguf().is_none());
    let metadata = gguf.gguf().unwrap();
    assert_eq!(metadata.str("tokenizer.ggml.pre"), Some("smollm"));
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().len(), 288);
    assert_eq!(metadata.i32s("tokenizer.ggml.token_type").unwrap()[0], 3);
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token"), Some(false));
    assert_eq!(metadata.f32("llama.rope.freq_base"), Some(1e5));
    assert_eq!(metadata.u64("llama.block_count"), Some(2));
    assert_eq!(metadata.u64("general.architecture"), None);

    let mut compared = 0;
    for (name, tensor) in directory.tensors() {
        assert_eq!(tensor.codec(), Codec::BF16);
        let shape = match tensor.rows() {
            1 => vec![tensor.cols()],
            rows => vec![rows, tensor.cols()],
        };
        let other = gguf.tensor(name, &shape).unwrap();
        assert_eq!((other.rows(), other.cols()), (tensor.rows(), tensor.cols()));
        assert_eq!(rows(&other), rows(&tensor), "{name}");
        tensor.release();
        assert_eq!(rows(&other), rows(&tensor), "{name} after release");
        compared += 1;
    }
    assert_eq!(compared, 2 + 2 * 9);
    assert!(gguf.has_tensor("model.layers.1.mlp.up_proj.weight"));
    assert!(!gguf.has_tensor("lm_head.weight") && !gguf.has_tensor("blk.0.attn_q.weight"));
}

/// With an architecture other than `llama`, rows of queries and keys are not reordered: the smollm2
/// file with the architecture `qwen2` gives the rows in the order of the file.
#[test]
fn only_llama_rows_are_reordered() {
    let mut bytes = fs::read(models().join("smollm2.gguf")).unwrap();
    for i in 0..bytes.len() - 6 {
        if &bytes[i..i + 6] == b"llama." {
            bytes[i..i + 6].copy_from_slice(b"qwen2.");
        }
    }
    let at = bytes.windows(5).position(|window| window == b"llama").unwrap();
    bytes[at..at + 5].copy_from_slice(b"qwen2");
    let directory = common::directory(&[("qwen2.gguf", &bytes)]);
    let renamed = Checkpoint::open(&directory.path().join("qwen2.gguf")).unwrap();
    assert_eq!(renamed.config().family, Family::Qwen2);
    let llama = open("smollm2.gguf");

    let stored = |checkpoint: &Checkpoint| {
        let tensors: BTreeMap<_, _> = checkpoint.tensors().collect();
        rows(&tensors["blk.0.attn_q.weight"])
    };
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(rows(&renamed.tensor(name, &[96, 96]).unwrap()), stored(&renamed));
    assert_ne!(rows(&llama.tensor(name, &[96, 96]).unwrap()), stored(&llama));
}

#[test]
fn shards_single_files_and_directories_with_a_gguf() {
    let sharded = open("llama3");
    assert_eq!(sharded.weight_bytes(), 148_096);
    assert!(sharded.has_tensor("model.embed_tokens.weight"));
    assert!(sharded.has_tensor("model.norm.weight"));

    let (whole, file) = (open("odd"), open("odd/model.safetensors"));
    assert_eq!(whole.config(), file.config());
    assert_eq!(whole.weight_bytes(), file.weight_bytes());
    assert!(file.path().ends_with("odd/model.safetensors"));

    let gguf = common::Gguf::tiny().bytes();
    let directory = common::directory(&[("model.gguf", &gguf)]);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.config().rope_freq_factors, Some(vec![1.5; 8]));
    assert_eq!(checkpoint.config().vocab_size, 3);
}

fn rows(tensor: &galley_model::weights::TensorRef<'_>) -> Vec<f32> {
    let mut values = vec![f32::NAN; tensor.rows() * tensor.cols()];
    for (i, row) in values.chunks_mut(tensor.cols()).enumerate() {
        tensor.read_row(i, row);
    }
    values
}
