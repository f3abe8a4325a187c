//! GGUF names of tensors, by their Hugging Face names.

/// The GGUF name of a tensor; `None` if the Llama family has no such tensor.
pub(crate) fn gguf_name(name: &str) -> Option<String> {
    if let Some((_, gguf)) = WHOLE_MODEL.iter().find(|(canonical, _)| *canonical == name) {
        return Some((*gguf).into());
    }
    let (layer, tensor) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if layer.is_empty() || !layer.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (module, suffix) = tensor.rsplit_once('.')?;
    let (_, gguf) = LAYER.iter().find(|(canonical, _)| *canonical == module)?;
    Some(format!("blk.{layer}.{gguf}.{suffix}"))
}

const WHOLE_MODEL: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

const LAYER: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

#[cfg(test)]
mod tests {
    use super::gguf_name;

    #[test]
    fn names_are_those_of_gguf_py() {
        for (canonical, gguf) in [
            ("model.embed_tokens.weight", Some("token_embd.weight")),
            ("lm_head.weight", Some("output.weight")),
            ("model.layers.12.self_attn.q_proj.bias", Some("blk.12.attn_q.bias")),
            ("model.layers.0.self_attn.k_norm.weight", Some("blk.0.attn_k_norm.weight")),
            ("model.layers.3.post_attention_layernorm.weight", Some("blk.3.ffn_norm.weight")),
            ("model.layers.3.mlp.experts.weight", None),
            ("model.layers.x.mlp.up_proj.weight", None),
            ("model.layers..mlp.up_proj.weight", None),
            ("model.layers.3", None),
        ] {
            assert_eq!(gguf_name(canonical).as_deref(), gguf, "{canonical}");
        }
    }
}
