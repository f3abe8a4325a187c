//! Builds small checkpoints byte by byte.
#![allow(dead_code, reason = "every test binary uses a part")]

pub(crate) mod blocks;
pub(crate) mod exercise;

use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The tiny models that tests/oracle/make_tiny_models.py wrote.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models")
}

/// A builder of GGUF files.
#[derive(Clone, Default)]
pub(crate) struct Gguf {
    n_pairs: u64,
    pairs: Vec<u8>,
    n_tensors: u64,
    tensors: Vec<u8>,
    data: Vec<u8>,
}

pub(crate) const U32: u32 = 4;
pub(crate) const F32: u32 = 6;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;

pub(crate) const TYPE_F32: u32 = 0;
pub(crate) const TYPE_Q8_0: u32 = 8;

impl Gguf {
    /// A one-layer llama of 32 values, 2 heads of 16, 1 KV head, and 3 tokens.
    pub(crate) fn tiny() -> Self {
        let mut file = Self::default()
            .text("general.architecture", "llama")
            .u32("llama.block_count", 1)
            .u32("llama.context_length", 64)
            .u32("llama.embedding_length", 32)
            .u32("llama.feed_forward_length", 32)
            .u32("llama.attention.head_count", 2)
            .u32("llama.attention.head_count_kv", 1)
            .pair("llama.attention.layer_norm_rms_epsilon", F32, &1e-5_f32.to_le_bytes())
            .pair("tokenizer.ggml.tokens", ARRAY, &strings(&["a", "b", "</s>"]))
            .u32("tokenizer.ggml.eos_token_id", 2);
        for (name, cols, rows) in [
            ("token_embd.weight", 32, 3),
            ("blk.0.attn_q.weight", 32, 32),
            ("blk.0.attn_k.weight", 32, 16),
        ] {
            let data: Vec<u8> = (0..cols / 32 * rows * 34).map(|i| (i % 251) as u8).collect();
            file = file.tensor(name, &[cols, rows], TYPE_Q8_0, &data);
        }
        let norm: Vec<u8> = (0..32_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        file.tensor("blk.0.attn_norm.weight", &[32], TYPE_F32, &norm)
            .tensor("output_norm.weight", &[32], TYPE_F32, &norm)
            .tensor("rope_freqs.weight", &[8], TYPE_F32, &1.5_f32.to_le_bytes().repeat(8))
    }

    /// Removes the last `n` tensors of [`Self::tiny`] from the directory. Their data stays.
    pub(crate) fn drop_tensors(&mut self, n: usize) {
        let names = ["output_norm.weight", "rope_freqs.weight"];
        let name = string(names[names.len() - n]);
        let at = self.tensors.windows(name.len()).position(|window| window == name).unwrap();
        self.tensors.truncate(at);
        self.n_tensors -= n as u64;
    }

    pub(crate) fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.n_pairs += 1;
        self.pairs.extend(string(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self
    }

    /// Removes a key, by giving it another name of the same length.
    pub(crate) fn without(mut self, key: &str) -> Self {
        let name = string(key);
        let at = self.pairs.windows(name.len()).position(|window| window == name).expect("the key");
        self.pairs[at + name.len() - 1] = b'_';
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, U32, &value.to_le_bytes())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.pair(key, STRING, &string(value))
    }

    pub(crate) fn tensor(self, name: &str, dims: &[u64], kind: u32, data: &[u8]) -> Self {
        let offset = self.data.len() as u64;
        self.tensor_at(name, dims, kind, offset, data)
    }

    pub(crate) fn tensor_at(
        mut self,
        name: &str,
        dims: &[u64],
        kind: u32,
        offset: u64,
        data: &[u8],
    ) -> Self {
        self.n_tensors += 1;
        self.tensors.extend(string(name));
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.data.extend(data);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(3, self.n_tensors, self.n_pairs)
    }

    pub(crate) fn bytes_with(&self, version: u32, n_tensors: u64, n_pairs: u64) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(n_tensors.to_le_bytes());
        bytes.extend(n_pairs.to_le_bytes());
        bytes.extend(&self.pairs);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// Length and bytes of a GGUF string.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The value of an array of GGUF strings.
pub(crate) fn strings(texts: &[&str]) -> Vec<u8> {
    let mut bytes = STRING.to_le_bytes().to_vec();
    bytes.extend((texts.len() as u64).to_le_bytes());
    bytes.extend(texts.iter().flat_map(|text| string(text)));
    bytes
}

/// A configuration of one layer of 4 values, 2 heads of 2, and 3 tokens.
pub(crate) const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
 "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
 "num_key_value_heads": 1, "vocab_size": 3, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
 "eos_token_id": 2, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true}"#;

/// A header for tensors of a [`CONFIG`] model, with 48 bytes of data.
pub(crate) const HEADER: &str = r#"{"__metadata__": {"format": "pt"},
 "model.embed_tokens.weight": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]},
 "model.norm.weight": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
 "model.layers.0.input_layernorm.weight": {"dtype": "F16", "shape": [4], "data_offsets": [40, 48]}}"#;

/// A safetensors file with this header and `data_bytes` bytes of data.
pub(crate) fn safetensors(header: &str, data_bytes: u8) -> Vec<u8> {
    let mut bytes = string(header);
    bytes.extend(0..data_bytes);
    bytes
}

/// Opening a directory with these files must give an error that contains all `texts`.
#[track_caller]
pub(crate) fn refuses(files: &[(&str, &[u8])], texts: &[&str]) {
    let directory = directory(files);
    let error = exercise::exercise(directory.path()).expect_err("must be refused").to_string();
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
}

/// A directory with these files.
pub(crate) fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}
