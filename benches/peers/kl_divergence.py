#!/usr/bin/env python3
"""Mean KL divergence of quantised files from a reference, in llama.cpp and in Galley.

The reference is a bf16 file, run by each engine of --references. Every engine runs every file over
the same windows of real text. For each token, the divergence of the engine's distribution from a
reference's is sum(p * log(p / q)), p being the reference. A table has its mean and the share of
tokens with the same most probable token. A second table has the ratios of the mean divergences,
Galley's over llama.cpp's, with an interval of 95 % from resampled windows: against each engine's
own reference, and against each common one.

Models run one after the other, each over a whole window: beside each other they would take each
other's cores. The log-probabilities of the references are in memory for a window.

An engine is llama.cpp (flash attention, KV in f16), or galley-WEIGHTS: native (KV in bf16), bf16,
q8, q4, or f32 (operands and KV in f32, too). All models are in memory at the same time; a run with
fewer files needs less.

    python benches/peers/kl_divergence.py --reference bf16.gguf --files q8_0.gguf q4_0.gguf --data texts/
"""

import argparse
import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import llama_cpp
import numpy as np

from llamacpp import Context, load_model, tokenize
from texts import distinct_texts

PEER = "llama.cpp"
OWN = "galley-bf16"  # the reference that is Galley's own
GALLEY_LOGITS = "cargo bench --quiet -p galley-benches --bench logits --"
RESAMPLES = 2000


class LlamaCpp:
    """A file in llama.cpp, within this process."""

    CHUNK = 512  # tokens of a forward; with 128 it takes a quarter longer

    def __init__(self, path, args):
        self.model = load_model(path)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        settings = SimpleNamespace(threads=args.threads, no_flash_attention=False)
        self.context = Context(self.model, settings, 1, args.window, False, min(args.window, self.CHUNK))

    def begin(self, tokens):
        """A new window."""
        self.context.truncate(0)
        self.tokens, self.position = tokens, 0

    def logits(self, count):
        """The logits of the next `count` tokens of the window, valid until the next call."""
        rows = range(self.position, self.position + count)
        self.context.forward([(self.tokens[i], i, 0, True) for i in rows])
        self.position += count
        pointer = llama_cpp.llama_get_logits(self.context.context)
        return np.ctypeslib.as_array(pointer, (count, self.vocab_size))

    def close(self):
        """Give the memory back."""
        self.context.close()
        llama_cpp.llama_model_free(self.model)


class Galley:
    """A file in Galley, in a process of its own (benches/logits.rs)."""

    CHUNK = 128  # tokens whose logits are in memory at once

    def __init__(self, path, weights, args):
        command = [*shlex.split(args.galley_logits), "--model", path.resolve(), "--window", str(args.window)]
        command += ["--threads", str(args.threads)]
        command += ["--dtype", "f32"] if weights == "f32" else ["--weights", weights]
        if args.galley_cpu:
            command += ["--cpu", args.galley_cpu]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        size = np.empty(1, "<u4")
        self.read(size)
        self.vocab_size = int(size[0])
        self.rows = np.empty((self.CHUNK, self.vocab_size), "<f4")

    def read(self, numbers):
        """Fill an array with the next numbers of the output."""
        if self.process.stdout.readinto(numbers) < numbers.nbytes:
            raise SystemExit(f"{' '.join(map(str, self.process.args))}\nended with {self.process.wait()}")

    def begin(self, tokens):
        """A new window."""
        self.process.stdin.write(np.array([len(tokens), *tokens], "<u4").tobytes())
        self.process.stdin.flush()

    def logits(self, count):
        """The logits of the next `count` tokens of the window, valid until the next call."""
        self.read(self.rows[:count])
        return self.rows[:count]

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def open_engine(engine, path, args):
    """A file in an engine."""
    if engine == PEER:
        return LlamaCpp(path, args)
    return Galley(path, engine.removeprefix("galley-"), args)


class Rows:
    """Work on the rows of a chunk, shared by threads. A row is small enough for a core's cache."""

    def __init__(self, threads):
        self.threads, self.pool = threads, ThreadPoolExecutor(threads)

    def each(self, count, work):
        """Calls work(row) for every row below `count`."""
        share = -(-count // self.threads)
        parts = [range(start, min(start + share, count)) for start in range(0, count, share)]
        list(self.pool.map(lambda part: [work(row) for row in part], parts))


def log_softmax(logits, log_p):
    """Writes the logarithms of the probabilities of one token to `log_p`."""
    np.subtract(logits, logits.max(), out=log_p)
    log_p -= np.float32(np.log(np.exp(log_p).sum(dtype=np.float64)))


def divergence(log_p, log_q):
    """The KL divergence of two distributions of one token."""
    terms = log_p - log_q
    terms *= np.exp(log_p)
    return terms.sum(dtype=np.float64)


def chunks(model, tokens):
    """The logits of a window: pairs of a first row and some rows of logits."""
    model.begin(tokens)
    for start in range(0, len(tokens), model.CHUNK):
        yield start, model.logits(min(model.CHUNK, len(tokens) - start))


def reference_window(model, tokens, rows):
    """The log-probabilities of a reference, `tokens x vocabulary`."""
    log_p = np.empty((len(tokens), model.vocab_size), np.float32)
    for start, logits in chunks(model, tokens):
        rows.each(len(logits), lambda row: log_softmax(logits[row], log_p[start + row]))
    return log_p


def compare_window(models, references, tokens, rows):
    """For each model and each reference: divergence and same top of every token, `2 x tokens`."""
    known = {name: reference_window(models[name], tokens, rows) for name in references}
    pairs = [(model, reference) for model in models for reference in references if model != reference]
    results = {pair: np.empty((2, len(tokens))) for pair in pairs}

    def compare(name, token, log_q):
        for reference, log_p in known.items():
            if reference != name:
                same_top = log_p[token].argmax() == log_q.argmax()
                results[name, reference][:, token] = divergence(log_p[token], log_q), same_top

    def compare_logits(name, token, logits):
        log_q = np.empty_like(logits)
        log_softmax(logits, log_q)
        compare(name, token, log_q)

    for name, model in models.items():
        if name in known:
            rows.each(len(tokens), lambda token: compare(name, token, known[name][token]))
            continue
        for start, logits in chunks(model, tokens):
            rows.each(len(logits), lambda row: compare_logits(name, start + row, logits[row]))
    return results


def windows_of(args):
    """Windows of tokens, each from another place of the texts."""
    model = load_model(args.reference)
    count = -(-args.tokens // (args.window - args.skip))
    texts = distinct_texts(args.data, count, 8 * args.window)
    windows = [tokenize(model, text, args.window) for text in texts]
    llama_cpp.llama_model_free(model)
    return windows


def interval(ours, theirs):
    """The ratio of two means over windows, and an interval of 95 % of it."""
    picks = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = ours[picks].mean(axis=1) / theirs[picks].mean(axis=1)
    return ours.mean() / theirs.mean(), *np.percentile(ratios, [2.5, 97.5])


def label(name):
    """A model as tables show it."""
    engine, path = name
    return f"{path.name} in {engine}"


def print_divergences(results, references):
    """The table of divergences. `results`: for each pair, `windows x 2 x tokens`."""
    names = list(dict.fromkeys(model for model, _ in results))
    print("| file and engine | " + " | ".join(f"from {engine} | same top" for engine, _ in references) + " |")
    print("|---|" + "---:|---:|" * len(references))
    for name in names:
        cells = []
        for reference in references:
            pair = results.get((name, reference))
            cells += ["-", "-"] if pair is None else [f"{pair[:, 0].mean():.6f}", f"{pair[:, 1].mean():.2%}"]
        print(f"| {label(name)} | " + " | ".join(cells) + " |")


def ratios(results, references, args):
    """The ratios of Galley's mean divergences over llama.cpp's, one dictionary a ratio."""
    own = {PEER: (PEER, args.reference), "galley": (OWN, args.reference)}
    for path in args.files:
        for engine in args.engines:
            if engine == PEER or PEER not in args.engines:
                continue
            pairs = [("each engine's own", own["galley"], own[PEER])]
            pairs += [(reference[0], reference, reference) for reference in references]
            for title, ours, theirs in pairs:
                if ours not in references or theirs not in references:
                    continue
                ours, theirs = results[(engine, path), ours], results[(PEER, path), theirs]
                ratio, low, high = interval(ours[:, 0].mean(axis=1), theirs[:, 0].mean(axis=1))
                yield {"file": path.name, "engine": engine, "reference": title, "ratio": ratio, "low": low, "high": high}


def report(results, references, args):
    """Both tables, and JSON lines for --out."""
    print_divergences(results, references)
    rows = list(ratios(results, references, args))
    print(f"\n| file | reference | Galley / {PEER} | 95 % |\n|---|---|---:|---:|")
    for row in rows:
        print(f"| {row['file']} ({row['engine']}) | {row['reference']} | {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} |")
    if args.out:
        for (name, reference), values in results.items():
            rows.append({
                "model": label(name), "reference": label(reference), "tokens": values[:, 0].size,
                "mean_kl_divergence": values[:, 0].mean(), "same_top": values[:, 1].mean(),
            })
        with args.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="bf16 GGUF file")
    parser.add_argument("--references", nargs="+", default=[PEER, OWN], metavar="ENGINE", help="engines that run it")
    parser.add_argument("--files", type=Path, nargs="+", required=True, help="quantised GGUF files of the same weights")
    parser.add_argument("--engines", nargs="+", default=[PEER, "galley-native"], metavar="ENGINE", help="engines that run them")
    parser.add_argument("--data", type=Path, required=True, help="directory with .txt files at any depth")
    parser.add_argument("--tokens", type=int, default=20000, help="tokens to compare")
    parser.add_argument("--window", type=int, default=512, help="tokens in a window")
    parser.add_argument("--skip", type=int, default=32, help="tokens at the beginning of a window that do not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--galley-cpu", help="instruction set of Galley's kernels")
    parser.add_argument("--galley-logits", default=GALLEY_LOGITS, metavar="COMMAND", help="how to start benches/logits.rs")
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    args = parser.parse_args()
    if not 0 <= args.skip < args.window:
        parser.error("--skip must be below --window")
    return args


def main():
    """Runs all models window by window and prints the tables."""
    args = parse_arguments()
    windows = windows_of(args)
    references = [(engine, args.reference) for engine in args.references]
    wanted = references + [(engine, path) for path in args.files for engine in args.engines]
    models = {name: open_engine(*name, args) for name in dict.fromkeys(wanted)}
    sizes = {model.vocab_size for model in models.values()}
    if len(sizes) > 1:
        raise SystemExit(f"vocabularies of different sizes: {sorted(sizes)}")
    rows, parts = Rows(args.threads), {}
    for i, tokens in enumerate(windows):
        for pair, values in compare_window(models, references, tokens, rows).items():
            parts.setdefault(pair, []).append(values[:, args.skip :])
        print(f"\r{i + 1} of {len(windows)} windows", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for model in models.values():
        model.close()
    report({pair: np.stack(values) for pair, values in parts.items()}, references, args)


if __name__ == "__main__":
    main()
