//! The tensors that the decoder reads. A defect of any other tensor has no effect.

use crate::config::ModelConfig;

/// The Hugging Face names of the tensors that a model of this configuration has.
pub(super) fn names(config: &ModelConfig) -> impl Iterator<Item = String> {
    let head = (!config.tie_embeddings).then_some("lm_head.weight");
    let whole = ["model.embed_tokens.weight", "model.norm.weight"].into_iter().chain(head);
    let biases = if config.qkv_bias { &BIASES[..] } else { &[] };
    let norms = if config.qk_norm { &QK_NORMS[..] } else { &[] };
    let parts: Vec<&str> = [&LAYER[..], biases, norms].concat();
    let layers = (0..config.n_layers).flat_map(move |layer| {
        let name = move |part: &&str| format!("model.layers.{layer}.{part}");
        parts.iter().map(name).collect::<Vec<_>>()
    });
    whole.map(str::to_owned).chain(layers)
}

/// Whether the tensor of this Hugging Face name is a matrix.
pub(super) fn is_matrix(name: &str) -> bool {
    !name.ends_with("norm.weight") && !name.ends_with(".bias")
}

/// Whether the tensor of this Hugging Face name has a row for each token of the vocabulary.
pub(super) fn is_vocabulary(name: &str) -> bool {
    name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight")
}

/// The Hugging Face name of the matrix that is packed together with this one: the other of gate and up.
pub(super) fn gated_partner(name: &str) -> Option<String> {
    let (gate, up) = ("gate_proj.weight", "up_proj.weight");
    let partner = |of: &str, other: &str| Some(format!("{}{other}", name.strip_suffix(of)?));
    partner(gate, up).or_else(|| partner(up, gate))
}

/// The kinds of needed tensors, and the ends of their Hugging Face names.
pub(super) const KINDS: [(&str, &str); 11] = [
    ("embedding", "embed_tokens.weight"),
    ("q", "q_proj.weight"),
    ("k", "k_proj.weight"),
    ("v", "v_proj.weight"),
    ("o", "o_proj.weight"),
    ("gate", "gate_proj.weight"),
    ("up", "up_proj.weight"),
    ("down", "down_proj.weight"),
    ("output head", "lm_head.weight"),
    ("norms", "norm.weight"),
    ("biases", ".bias"),
];

const LAYER: [&str; 9] = [
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
];
const BIASES: [&str; 3] =
    ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
const QK_NORMS: [&str; 2] = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
