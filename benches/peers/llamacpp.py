#!/usr/bin/env python3
"""Measure llama.cpp on this machine: decode at several batch sizes, and prefill.

One JSON line per (batch, context). Every sequence of a batch is filled with another real text;
then the texts' own next tokens are decoded, one per sequence and step, with logits for all of
them. Only the time inside llama.cpp counts: no sampling, no tokenisation, no Python in between.

    decode_tok_s   tokens per second of the whole batch
    t_step_ms      median time of a decode step
    prefill_tok_s  prompt tokens per second; at batch 1 the median of the repeats, else one run
    read_gb_s      bandwidth of the memory, measured before and after decoding
    peak_rss_mb    peak resident memory of this process, without the memory of that measurement;
                   pages of the file count, as they do in Galley

With more than one sequence both layouts of the KV cache are tried (a buffer for each sequence, or
a unified one), and the row is that of the faster decode.

(Not named llama_cpp.py, because a script's own directory is searched first for the package.)
"""

import argparse
import ctypes
import json
import os
import statistics
import time
from pathlib import Path

import llama_cpp

from machine import forget_peak_rss, peak_rss_bytes, read_bandwidth
from texts import distinct_texts

BATCH_TOKENS = 512
CONTEXT_GRANULARITY = 256  # llama.cpp pads the cache of a sequence to this
WARM_UP_STEPS = 2
F16 = 1  # ggml's number for the type of the KV cache


@llama_cpp.llama_log_callback
def discard_log(_level, _text, _user_data):
    """llama.cpp logs every tensor it loads; measurements print one line."""


def load_model(path):
    """The model, memory-mapped."""
    llama_cpp.llama_log_set(discard_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"{path}: llama.cpp cannot load it")
    return model


def tokenize(model, text, length):
    """The first `length` tokens of `text`."""
    raw = text.encode()
    buffer = (llama_cpp.llama_token * len(raw))()
    vocab = llama_cpp.llama_model_get_vocab(model)
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, len(raw), False, False)
    if count < length:
        raise SystemExit(f"a text has only {count} tokens, {length} are needed")
    return buffer[:length]


class Context:
    """A llama.cpp context with one sequence per text, and the clock around its forward pass."""

    def __init__(self, model, args, sequences, tokens_each, unified, batch_tokens=BATCH_TOKENS):
        tokens_each = -(-tokens_each // CONTEXT_GRANULARITY) * CONTEXT_GRANULARITY
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = sequences * tokens_each
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            if args.no_flash_attention
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        )
        params.type_k = params.type_v = F16
        params.kv_unified = unified
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {params.n_ctx} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(batch_tokens, 0, 1)

    def close(self):
        """Give the memory back."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)

    def forward(self, rows):
        """Run rows of (token, position, sequence, wants logits); returns the seconds it took."""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        start = time.perf_counter()
        status = llama_cpp.llama_decode(self.context, self.batch)
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"llama_decode failed with {status}")
        return seconds

    def truncate(self, length):
        """Forget everything after the first `length` tokens of every sequence."""
        llama_cpp.llama_memory_seq_rm(self.memory, -1, length, -1)

    def prefill(self, texts, length):
        """Fill every sequence with the first `length` tokens of its text; returns the seconds."""
        seconds = 0.0
        for sequence, text in enumerate(texts):
            for start in range(0, length, BATCH_TOKENS):
                end = min(start + BATCH_TOKENS, length)
                seconds += self.forward([(text[i], i, sequence, i == length - 1) for i in range(start, end)])
        return seconds

    def decode(self, texts, length, steps):
        """Decode `steps` tokens after the first `length`; returns the median seconds of a step."""
        times = []
        for position in range(length, length + WARM_UP_STEPS + steps):
            times.append(self.forward([(text[position], position, s, True) for s, text in enumerate(texts)]))
        return statistics.median(times[WARM_UP_STEPS:])


def measure(model, args, texts, length, unified):
    """Medians of the seconds of the prefill of all texts, of the seconds of a decode step and of the
    bytes a second that the memory gave beside it; and the peak memory in bytes."""
    context = Context(model, args, len(texts), length + WARM_UP_STEPS + args.steps, unified)
    prefill_times, step_times, bandwidths, peaks = [], [], [], []

    def probe():
        peaks.append(peak_rss_bytes())
        bandwidths.append(read_bandwidth(args.threads))
        forget_peak_rss()

    for repeat in range(args.repeats):
        if repeat == 0 or len(texts) == 1:
            context.truncate(0)
            prefill_times.append(context.prefill(texts, length))
        context.truncate(length)
        probe()
        step_times.append(context.decode(texts, length, args.steps))
        probe()
    context.close()
    prefill, step, bandwidth = map(statistics.median, [prefill_times, step_times, bandwidths])
    return prefill, step, bandwidth, max(peaks)


def main():
    """Parse the command line and print a line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--data", type=Path, required=True, help="directory with .txt files at any depth")
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8000], metavar="N", help="prompt lengths")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="B", help="sequences decoded together")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median counts")
    parser.add_argument("--steps", type=int, default=32, help="decode steps in a measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-flash-attention", action="store_true")
    parser.add_argument("--kv-unified", choices=["off", "on", "both"], default="both", help="KV layouts to try")
    args = parser.parse_args()

    model = load_model(args.model)
    longest = max(args.contexts) + WARM_UP_STEPS + args.steps
    for batch in args.batch:
        # Eight characters a token are enough for any text here.
        texts = [tokenize(model, text, longest) for text in distinct_texts(args.data, batch, 8 * longest)]
        for length in args.contexts:
            layouts = {"off": [False], "on": [True], "both": [False, True]}[args.kv_unified]
            layouts = [False] if batch == 1 else layouts
            runs = [(*measure(model, args, texts, length, unified), unified) for unified in layouts]
            prefill, step, bandwidth, peak, unified = min(runs, key=lambda run: run[1])
            row = {
                "engine": "llama.cpp",
                "version": f"llama-cpp-python {llama_cpp.__version__}",
                "weights": args.model.name,
                "threads": args.threads,
                "flash_attention": not args.no_flash_attention,
                "kv_unified": unified,
                "batch": batch,
                "context": length,
                "decode_tok_s": round(batch / step, 2),
                "prefill_tok_s": round(batch * length / prefill, 1),
                "t_step_ms": round(1e3 * step, 3),
                "read_gb_s": round(bandwidth / 1e9, 2),
                "peak_rss_mb": round(peak / 1e6, 1),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
