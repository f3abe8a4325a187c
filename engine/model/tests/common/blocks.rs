//! GGUF files of quantised weights, with random codes.

use super::{F32, Gguf, TYPE_F32};
use galley_backend::BlockFormat;

/// A block type of ggml.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockType {
    pub(crate) format: BlockFormat,
    /// Number of the type in `enum ggml_type`.
    pub(crate) kind: u32,
    /// Bytes of a block.
    pub(crate) bytes: usize,
    /// Names and offsets of the fields that are f16.
    pub(crate) halves: &'static [(&'static str, usize)],
}

const SCALE: &[(&str, usize)] = &[("scale", 0)];
const SCALE_AND_MINIMUM: &[(&str, usize)] = &[("scale", 0), ("minimum", 2)];

const fn block_type(
    format: BlockFormat,
    kind: u32,
    bytes: usize,
    halves: &'static [(&'static str, usize)],
) -> BlockType {
    BlockType { format, kind, bytes, halves }
}

pub(crate) const Q8_0: BlockType = block_type(BlockFormat::Q8_0, 8, 34, SCALE);
pub(crate) const Q4_0: BlockType = block_type(BlockFormat::Q4_0, 2, 18, SCALE);
pub(crate) const Q4_1: BlockType = block_type(BlockFormat::Q4_1, 3, 20, SCALE_AND_MINIMUM);
pub(crate) const Q5_0: BlockType = block_type(BlockFormat::Q5_0, 6, 22, SCALE);
pub(crate) const Q5_1: BlockType = block_type(BlockFormat::Q5_1, 7, 24, SCALE_AND_MINIMUM);
pub(crate) const Q4_K: BlockType = block_type(BlockFormat::Q4_K, 12, 144, SCALE_AND_MINIMUM);
pub(crate) const Q5_K: BlockType = block_type(BlockFormat::Q5_K, 13, 176, SCALE_AND_MINIMUM);
pub(crate) const Q6_K: BlockType = block_type(BlockFormat::Q6_K, 14, 210, &[("scale", 208)]);
pub(crate) const IQ4_NL: BlockType = block_type(BlockFormat::IQ4_NL, 20, 18, SCALE);

/// All block types.
pub(crate) const TYPES: [BlockType; 9] = [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, IQ4_NL];

impl BlockType {
    /// Blocks of random codes, with scales and minimums of 1/64.
    pub(crate) fn blocks(&self, n_weights: usize) -> Vec<u8> {
        let mut state = 14_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let n_bytes = n_weights / self.format.scale_len() * self.bytes;
        let mut bytes: Vec<u8> = (0..n_bytes).map(|_| next()).collect();
        for block in bytes.chunks_exact_mut(self.bytes) {
            for (_, offset) in self.halves {
                block[*offset..][..2].copy_from_slice(&0x2400_u16.to_le_bytes());
            }
        }
        bytes
    }
}

/// The matrices of a model in the order of its file, with their columns and rows.
pub(crate) type Matrices = [(&'static str, usize, usize); 9];

/// The matrices of [`file`].
pub(crate) const MATRICES: Matrices = [
    ("token_embd.weight", 256, 3),
    ("blk.0.attn_q.weight", 256, 256),
    ("blk.0.attn_k.weight", 256, 128),
    ("blk.0.attn_v.weight", 256, 128),
    ("blk.0.attn_output.weight", 256, 256),
    ("blk.0.ffn_gate.weight", 256, 512),
    ("blk.0.ffn_up.weight", 256, 512),
    ("blk.0.ffn_down.weight", 512, 256),
    ("output.weight", 256, 3),
];

/// The matrices of a model that is read in a few milliseconds: a head of 32, and 32 values within the
/// MLP. Formats with blocks of 256 fit all but `attn_output` and `ffn_down`.
pub(crate) const NARROW_MATRICES: Matrices = [
    ("token_embd.weight", 256, 3),
    ("blk.0.attn_q.weight", 256, 32),
    ("blk.0.attn_k.weight", 256, 32),
    ("blk.0.attn_v.weight", 256, 32),
    ("blk.0.attn_output.weight", 32, 256),
    ("blk.0.ffn_gate.weight", 256, 32),
    ("blk.0.ffn_up.weight", 256, 32),
    ("blk.0.ffn_down.weight", 32, 256),
    ("output.weight", 256, 3),
];

/// Gives the matrices of a model every type once.
pub(crate) fn mixed(name: &str) -> BlockType {
    let types = [Q6_K, Q4_K, Q5_K, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL];
    let at = MATRICES.iter().position(|(matrix, _, _)| *matrix == name);
    types[at.expect("a matrix of the file")]
}

/// A whole model of one layer with 256 values, 2 heads of 128, 1 KV head, and 3 tokens. `type_of`
/// gives each of the [`MATRICES`] a type, and `change` its bytes.
pub(crate) fn file(
    type_of: impl Fn(&str) -> BlockType,
    change: impl Fn(&str, &mut Vec<u8>),
) -> Gguf {
    file_of(&MATRICES, |name, n_weights| {
        let block_type = type_of(name);
        let mut data = block_type.blocks(n_weights);
        change(name, &mut data);
        (block_type.kind, data)
    })
}

/// A whole model of one layer with 1 KV head and 3 tokens. `storage_of` gives each matrix, of so many
/// weights, the number of its type and its bytes.
pub(crate) fn file_of(
    matrices: &Matrices,
    storage_of: impl Fn(&str, usize) -> (u32, Vec<u8>),
) -> Gguf {
    let [(_, hidden, _), (_, _, q), (_, _, kv), _, _, (_, _, intermediate), ..] = *matrices;
    let mut file = Gguf::default()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", hidden as u32)
        .u32("llama.feed_forward_length", intermediate as u32)
        .u32("llama.attention.head_count", (q / kv) as u32)
        .u32("llama.attention.head_count_kv", 1)
        .u32("llama.attention.key_length", kv as u32)
        .pair("llama.attention.layer_norm_rms_epsilon", F32, &1e-5_f32.to_le_bytes())
        .u32("tokenizer.ggml.eos_token_id", 2);
    let norm = 1.5_f32.to_le_bytes().repeat(hidden);
    for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"] {
        file = file.tensor(name, &[hidden as u64], TYPE_F32, &norm);
    }
    for &(name, cols, rows) in matrices {
        let (kind, data) = storage_of(name, cols * rows);
        file = file.tensor(name, &[cols as u64, rows as u64], kind, &data);
    }
    file
}
