#!/usr/bin/env python3
"""A tiny GGUF model with weights in every quantised format that Galley reads, and its logits by transformers.

Writes two files into the output directory. `model.gguf` is of the architecture llama, with biases on queries, keys and
values. Every matrix is quantised, and the formats differ within a layer, between the parts of one stacked product too
(`LAYERS`). Codes and sub-scales are random bits; the f16 scales are drawn so that weights have the standard deviation
that keeps activations and logits well spread. Rows of queries and keys are in llama.cpp's order.

`reference.safetensors` has the form that make_tiny_models.py documents. Its model has the weights that gguf-py reads
from the written file, in float32.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from make_codecs import SCALES
from make_tiny_models import COMMON, LLAMA, build_tokenizer, finish_gguf, gguf_writer, reference
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

CONFIG = {
    **COMMON,
    **LLAMA,
    "attention_bias": True,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "rope_theta": 10000.0,
}
# Formats of a layer's matrices: the names of GGUF, and of Hugging Face.
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYERS = [
    # The formats of Q4_K_M and Q5_K_M files.
    [Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q4_K, Type.Q4_K, Type.Q5_K, Type.Q6_K],
    # The formats of files from 2023, and of models whose rows are no superblocks.
    [Type.Q5_0, Type.Q8_0, Type.Q5_1, Type.Q4_1, Type.Q5_0, Type.Q4_0, Type.Q5_1],
    # Values that are not evenly spaced beside others.
    [Type.IQ4_NL, Type.Q4_1, Type.Q8_0, Type.Q4_0, Type.IQ4_NL, Type.Q4_1, Type.Q4_K],
]
EMBEDDING, HEAD = Type.Q4_K, Type.Q6_K
# Half of the largest code, of the formats with a minimum: the minimum that centres the values.
CENTRES = {Type.Q4_1: -7.5, Type.Q5_1: -15.5, Type.Q4_K: 7.5, Type.Q5_K: 15.5}


def quantised(kind, rows, cols, deviation, rng):
    """Random blocks of a matrix whose values have a standard deviation, as bytes [rows, bytes of a row]."""
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rows * cols // block_len
    raw = rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    scales = rng.uniform(0.5, 1.5, blocks) * rng.choice([-1.0, 1.0], blocks)
    fields = {SCALES[kind][0]: scales}
    if kind in CENTRES:
        fields[SCALES[kind][1]] = CENTRES[kind] * scales * rng.uniform(0.8, 1.2, blocks)

    def with_scales(factor):
        for offset, values in fields.items():
            halves = (factor * values).astype(np.float16)
            raw[:, offset : offset + 2] = halves.view(np.uint8).reshape(blocks, 2)
        return raw.reshape(rows, -1)

    # Values are linear in the scales.
    trial = 2.0**-10
    return with_scales(trial * deviation / gguf.dequantize(with_scales(trial), kind).std())


def write_model(path, tokenizer, rng):
    """The GGUF file."""
    writer = gguf_writer(CONFIG, tokenizer, path, "tiny quantised", gguf.LlamaFileType.MOSTLY_Q4_K_M)
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    kv = hidden * CONFIG["num_key_value_heads"] // CONFIG["num_attention_heads"]
    rows = {"attn_k": kv, "attn_v": kv, "ffn_gate": inner, "ffn_up": inner}

    def add_matrix(name, kind, rows, cols, deviation):
        raw = quantised(kind, rows, cols, deviation, rng)
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)

    def add_vector(name, values):
        writer.add_tensor(name, values.astype(np.float32))

    add_matrix("token_embd", EMBEDDING, CONFIG["vocab_size"], hidden, 1.0)
    add_matrix("output", HEAD, CONFIG["vocab_size"], hidden, 0.2)
    add_vector("output_norm.weight", rng.uniform(0.5, 1.5, hidden))
    for layer, kinds in enumerate(LAYERS):
        for norm in ["attn_norm", "ffn_norm"]:
            add_vector(f"blk.{layer}.{norm}.weight", rng.uniform(0.5, 1.5, hidden))
        for part, kind in zip(PARTS, kinds, strict=True):
            cols = inner if part == "ffn_down" else hidden
            add_matrix(f"blk.{layer}.{part}", kind, rows.get(part, hidden), cols, 1.0 / cols**0.5)
        for part in ["attn_q", "attn_k", "attn_v"]:
            add_vector(f"blk.{layer}.{part}.bias", rng.normal(0.0, 0.5, rows.get(part, hidden)))
    finish_gguf(writer)


def hugging_face_row_order(weight, heads):
    """The rows that llama.cpp interleaves, in halves of a head again."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def hugging_face_name(name):
    """The name of a tensor with the GGUF name `name`."""
    names = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
    parts = {**PARTS, "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    stem, kind = name.rsplit(".", 1)
    if stem in names:
        return f"{names[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{parts[part]}.{kind}"


def read_weights(path):
    """The weights of the file in float32, under the names and in the row order of Hugging Face."""
    weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        if ".attn_q." in tensor.name:
            value = hugging_face_row_order(value, CONFIG["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            value = hugging_face_row_order(value, CONFIG["num_key_value_heads"])
        weights[hugging_face_name(tensor.name)] = value.contiguous()
    # Attention in transformers has four biases or none.
    for layer in range(len(LAYERS)):
        weights[f"model.layers.{layer}.self_attn.o_proj.bias"] = torch.zeros(CONFIG["hidden_size"])
    return weights


def main():
    """Parse the command line and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="directory to write the files to")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    path = args.output / "model.gguf"
    write_model(path, build_tokenizer(), np.random.default_rng(14))
    config = LlamaConfig(**{key: value for key, value in CONFIG.items() if key != "model_type"})
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    model.load_state_dict(read_weights(path), strict=True)
    tensors = reference(model, torch.Generator().manual_seed(1))
    save_file(tensors, args.output / "reference.safetensors")
    spread = tensors["seq1.logits"].std().item()
    size = path.stat().st_size
    print(f"{size} bytes, logits' standard deviation {spread:.2f}, greedy {tensors['seq1.greedy'].tolist()}")


if __name__ == "__main__":
    main()
