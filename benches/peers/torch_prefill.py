#!/usr/bin/env python3
"""Measure prefill with torch and transformers on this machine: bf16 weights, sdpa attention.

One JSON line per (batch, context): the median of the repeats after one warm-up. Each sequence of
a batch is another real text; the KV cache is filled and logits are computed for the last token
only, as an engine would.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from texts import distinct_texts


@torch.inference_mode()
def prefill_seconds(model, tokens):
    """The time of one forward over whole prompts."""
    start = time.perf_counter()
    model(tokens, use_cache=True, logits_to_keep=1)
    return time.perf_counter() - start


def main():
    """Parse the command line and print a line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory")
    parser.add_argument("--data", type=Path, required=True, help="directory with .txt files at any depth")
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8000], metavar="N", help="prompt lengths")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="B", help="prompts computed together")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median counts")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.eval()

    longest = max(args.contexts)
    for batch in args.batch:
        # Eight characters a token are enough for any text here.
        texts = distinct_texts(args.data, batch, 8 * longest)
        tokens = torch.tensor([tokenizer.encode(text, add_special_tokens=False)[:longest] for text in texts])
        for length in args.contexts:
            prompts = tokens[:, :length].contiguous()
            prefill_seconds(model, prompts)
            seconds = statistics.median(prefill_seconds(model, prompts) for _ in range(args.repeats))
            row = {
                "engine": "torch",
                "version": f"torch {torch.__version__}, transformers {transformers.__version__}",
                "weights": "bf16",
                "threads": args.threads,
                "batch": batch,
                "context": length,
                "decode_tok_s": None,
                "prefill_tok_s": round(batch * length / seconds, 1),
                "t_step_ms": round(1e3 * seconds, 3),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
