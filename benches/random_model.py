#!/usr/bin/env python3
"""Writes a model of a well-known shape with random weights: the cost of a step does not depend on their values.

    python benches/random_model.py llama-3.1-8b DIR

A Hugging Face directory without a tokenizer, in bf16: `config.json` and safetensors files of at most 4 GB. Matrices are
normal with the spread of an initialised model (each the same 64 MB of numbers over and over, from another place), norms
are 1, biases 0. Needs numpy and as much disk as the model is large.
"""

import argparse
import json
import pathlib
import struct

import numpy

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

SHAPES = {
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "rope_scaling": {**LLAMA_3_ROPE, "factor": 32.0},
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 14336,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "rope_scaling": LLAMA_3_ROPE,
    },
    "qwen2.5-7b": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
        "vocab_size": 152064, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
}
MAX_FILE_BYTES = 4_000_000_000


def tensors(config):
    """Names and shapes, in the order in which they are read."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    dim = config.get("head_dim", hidden // config["num_attention_heads"])
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        for name, width in (("q", q), ("k", kv), ("v", kv)):
            yield layer + f"self_attn.{name}_proj.weight", (width, hidden)
            if config["model_type"] == "qwen2":
                yield layer + f"self_attn.{name}_proj.bias", (width,)
        yield layer + "self_attn.o_proj.weight", (hidden, q)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "mlp.gate_proj.weight", (inner, hidden)
        yield layer + "mlp.up_proj.weight", (inner, hidden)
        yield layer + "mlp.down_proj.weight", (hidden, inner)


def bf16(values):
    """Numbers as the bits of bfloat16."""
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    config = {**SHAPES[arguments.shape], "torch_dtype": "bfloat16", "eos_token_id": 2, "hidden_act": "silu"}
    arguments.directory.mkdir(parents=True, exist_ok=True)

    noise = bf16(numpy.random.default_rng(1).normal(0, 0.02, 32 << 20)).tobytes()
    files, size = [[]], 0
    for name, shape in tensors(config):
        n_bytes = 2 * int(numpy.prod(shape))
        if files[-1] and size + n_bytes > MAX_FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append((name, shape, n_bytes))
        size += n_bytes

    weight_map = {}
    for number, entries in enumerate(files, 1):
        file_name = f"model-{number:05}-of-{len(files):05}.safetensors"
        header, offset = {}, 0
        for name, shape, n_bytes in entries:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + n_bytes]}
            weight_map[name] = file_name
            offset += n_bytes
        header = json.dumps(header).encode()
        header += b" " * (-len(header) % 8)
        with open(arguments.directory / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for place, (name, shape, n_bytes) in enumerate(entries):
                if len(shape) == 1:
                    file.write(bf16(numpy.full(shape, float("bias" not in name))).tobytes())
                    continue
                start = place * 1_000_003 * 2 % len(noise)
                while n_bytes > 0:
                    piece = noise[start:start + n_bytes]
                    file.write(piece)
                    n_bytes -= len(piece)
                    start = 0
        print(file_name, f"{offset / 1e9:.2f} GB", flush=True)
    (arguments.directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}))
    # Written last: without config.json the directory is not accepted as a model.
    (arguments.directory / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
