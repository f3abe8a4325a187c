#!/usr/bin/env python3
"""Scaled rotary embeddings: the results of transformers for a tiny model with such a config.json.

Each directory of the output holds the config.json of a variant and `reference.safetensors` with one sequence that goes
past the original context, run in one forward in float32 with eager attention:

    tokens      i32 [n]         the sequence
    positions   i32 [p]         where logits were taken
    logits      f32 [p, vocab]
    inv_freq    f32 [head/2]    the frequencies after that forward
    scale       f32 [1]         factor of cosines and sines

Weights and tokenizer come from the variant's tiny model (`base` in the metadata), in the directory that make_tiny_models.py wrote.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

LENGTH = 75
POSITIONS = [0, 16, 31, 32, 40, 63, 74]
ORIGINAL = "original_max_position_embeddings"

# Each scaled context is longer than the original context, and LENGTH lies between the two.
VARIANTS = {
    # The block that Qwen2.5's model cards recommend for long texts.
    "yarn-qwen": (
        "qwen2",
        {
            "max_position_embeddings": 40,
            "rope_scaling": {"factor": 4.0, ORIGINAL: 40, "type": "yarn"},
        },
    ),
    # Every parameter is given, in the form of transformers 5, with DeepSeek's two weights of the logarithm.
    "yarn-mscale": (
        "smollm2",
        {
            "rope_theta": None,
            "rope_scaling": None,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 20000.0,
                "factor": 8.0,
                ORIGINAL: 32,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "mscale": 1.5,
                "mscale_all_dim": 0.5,
                "truncate": False,
            },
        },
    ),
    # The factor is the ratio of the two lengths, the original length stands outside the object, and the scale is given.
    "yarn-ratio": (
        "qwen3",
        {
            "max_position_embeddings": 160,
            ORIGINAL: 40,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": None,
                "attention_factor": 0.9,
                "beta_fast": 6,
                "beta_slow": 2,
            },
        },
    ),
    # The parameters that tests/rope.rs adds to smollm2.gguf, which otherwise equals this config.json.
    "yarn-gguf": (
        "smollm2",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 64}},
    ),
    "dynamic": (
        "smollm2",
        {"max_position_embeddings": 40, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ),
    # A small base, and heads that together are wider than the model.
    "dynamic-qwen3": (
        "qwen3",
        {
            "max_position_embeddings": 24,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 5.5},
        },
    ),
}


@torch.inference_mode()
def reference(directory, seed):
    """The tensors of reference.safetensors."""
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(directory, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 288, (LENGTH,), generator=generator)
    logits = model(tokens[None], use_cache=False).logits[0]
    rotary = model.model.rotary_emb
    return {
        "tokens": tokens.int(),
        "positions": torch.tensor(POSITIONS, dtype=torch.int32),
        "logits": logits[POSITIONS].contiguous(),
        "inv_freq": rotary.inv_freq.float().contiguous(),
        "scale": torch.tensor([rotary.attention_scaling], dtype=torch.float32),
    }


def main():
    """Parse the command line and write every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="directory that make_tiny_models.py wrote")
    parser.add_argument("output", type=Path, help="directory to write the variants to")
    args = parser.parse_args()
    for seed, (name, (base, changes)) in enumerate(VARIANTS.items()):
        config = json.loads((args.models / base / "config.json").read_text())
        config.update(changes)
        config = {key: value for key, value in config.items() if not (key in changes and value is None)}
        directory = args.output / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy(directory / "config.json", scratch)
            shutil.copy(args.models / base / "model.safetensors", scratch)
            tensors = reference(scratch, seed)
        tensors_file = directory / "reference.safetensors"
        save_file(tensors, tensors_file, metadata={"base": base})
        print(f"{name:14} of {base:8} scale {tensors['scale'].item():.4f}, {tensors_file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
