//! Reads everything that a checkpoint offers. The fuzz targets use this file too.

use galley_backend::{Formats, RowCodes, WeightFormat, WeightRows, cpu::CpuConfig};
use galley_model::{
    LoadOptions, Result,
    weights::{Checkpoint, TensorRef},
};
use std::{hint::black_box, path::Path};

/// Opens a checkpoint, asks for its types and sizes, and reads every tensor, by its own name and by the
/// names and shapes that the configuration implies.
pub(crate) fn exercise(path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    for (_, tensor) in checkpoint.tensors() {
        read_all(&tensor);
    }
    black_box((checkpoint.weight_types(), checkpoint.has_blocks()));
    let mut formats = Formats::NATIVE;
    for weights in WEIGHTS {
        formats.weights = weights;
        black_box(checkpoint.packed_bytes(formats));
    }
    let config = checkpoint.config();
    if config.head_dim <= 1 << 12 {
        black_box(config.rope_inv_freq());
    }
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    let mut names = vec![
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden]),
        ("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..config.n_layers.min(2) {
        for (name, shape) in [
            ("input_layernorm.weight", vec![hidden]),
            ("self_attn.q_proj.weight", vec![q, hidden]),
            ("self_attn.q_proj.bias", vec![q]),
            ("self_attn.k_proj.weight", vec![kv, hidden]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.weight", vec![kv, hidden]),
            ("self_attn.v_proj.bias", vec![kv]),
            ("self_attn.o_proj.weight", vec![hidden, q]),
            ("post_attention_layernorm.weight", vec![hidden]),
            ("mlp.gate_proj.weight", vec![mlp, hidden]),
            ("mlp.up_proj.weight", vec![mlp, hidden]),
            ("mlp.down_proj.weight", vec![hidden, mlp]),
        ] {
            names.push((format!("model.layers.{layer}.{name}"), shape));
        }
    }
    for (name, shape) in names {
        if let Ok(tensor) = checkpoint.tensor(&name, &shape) {
            read_all(&tensor);
            tensor.release();
        }
    }
    Ok(())
}

/// The formats of weights that a device may be asked for.
const WEIGHTS: [WeightFormat; 5] = [
    WeightFormat::Native,
    WeightFormat::Bf16,
    WeightFormat::F32,
    WeightFormat::Q8,
    WeightFormat::Q4,
];

/// Opens a checkpoint and loads it onto the CPU, with its weights as in the file.
pub(crate) fn load(path: &Path) -> Result<()> {
    let config = CpuConfig::default().n_threads(1).formats(Formats::NATIVE);
    let options = LoadOptions::new(16, 1).max_rows(1).max_logit_rows(1);
    galley_model::load(&Checkpoint::open(path)?, config, options, &mut |_, _| {}).map(drop)
}

/// Reads values, and codes if there are any.
fn read_all(tensor: &TensorRef<'_>) {
    // Empty rows take no bytes in the file, so their number is unlimited.
    if tensor.rows() == 0 || tensor.cols() == 0 {
        return;
    }
    let mut row = vec![0.0; tensor.cols()];
    for i in 0..tensor.rows() {
        tensor.read_row(i, &mut row);
        black_box(&row);
        if let Some(format) = tensor.block_format(i) {
            let mut codes = RowCodes::new(format, tensor.cols());
            tensor.read_codes(i, &mut codes);
            black_box(&codes);
        }
    }
}
