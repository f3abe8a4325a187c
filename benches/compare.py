"""Galley beside llama.cpp and torch: the same weights, the same texts, one run.

Every file and row (batch, context) is measured several times. The engines take turns, so that all
see the machine's good and bad minutes: a ratio is taken of each turn, and the table has the median
of the ratios and an interval around it. *Floor* is the share of the least time that a decode step
can take: the bytes of weights and KV that this engine reads, over the bandwidth of the memory that
is measured beside it. *Peak* is the peak resident memory. JSON lines have all values. Needs a Python
with the peers (benches/peers/README.md says how to make one).

    python benches/compare.py --files q4_k_m.gguf q8_0.gguf --text texts/ --rows 1x512 1x4096 8x512

A quantised file beside its own bf16 expansion, and both engines without AVX-512:

    python benches/compare.py --files q4_k_m.gguf --galley-weights native bf16 --text texts/
    python benches/compare.py --files q4_k_m.gguf --galley-cpu avx2 --peer-python avx2/bin/python --text texts/
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
PEER = "llama.cpp"


def last_json(command, env=None):
    """Runs a command and returns the JSON objects it prints, one a line."""
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def galley(args, file, batch, context, weights):
    """One measurement of Galley."""
    command = [args.galley, "bench", "-m", file, "--text", args.text, "--json"]
    command += ["--batch", str(batch), "--context", str(context), "--gen", str(args.gen)]
    command += ["--threads", str(args.threads)]
    command += ["--weights", weights] if weights else []
    command += ["--cpu", args.galley_cpu] if args.galley_cpu else []
    return last_json(command)[-1]


def llamacpp(args, file, batch, context):
    """One measurement of llama.cpp at its best: flash attention on, a KV stream per sequence."""
    command = [args.peer_python, PEERS / "llamacpp.py", "--model", file]
    command += ["--data", args.text, "--contexts", str(context), "--batch", str(batch)]
    command += ["--repeats", "1", "--steps", str(args.gen), "--threads", str(args.threads)]
    command += ["--kv-unified", "off"]
    return last_json(command)[-1]


def torch(args, context):
    """One measurement of transformers' prefill in bf16."""
    command = [args.peer_python, PEERS / "torch_prefill.py", "--model", args.hf]
    command += ["--data", args.text, "--contexts", str(context), "--batch", "1", "--repeats", "1"]
    return last_json(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})[-1]


def measure(args, file, batch, context):
    """For each engine the measurements of all turns."""
    engines = {
        f"galley {weights}".strip(): lambda weights=weights: galley(args, file, batch, context, weights)
        for weights in args.galley_weights
    }
    engines[PEER] = lambda: llamacpp(args, file, batch, context)
    if args.hf and batch == 1:
        engines["torch"] = lambda: torch(args, context)
    runs = {engine: [] for engine in engines}
    for turn in range(args.repeats):
        # Every second turn is in reverse, so that no engine always follows the same one.
        order = list(engines) if turn % 2 == 0 else reversed(engines)
        for engine in order:
            runs[engine].append(engines[engine]())
    return runs


def median(runs, key):
    """The median of a value over an engine's turns; None if it was not measured."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def interval(values):
    """The range of the values' order statistics that holds their median with 95 %; of few values, all."""
    values, n = sorted(values), len(values)
    outside, cut = 0.0, 0
    while True:
        outside += math.comb(n, cut) / 2**n
        if 2 * outside > 0.05 or cut >= n // 2:
            break
        cut += 1
    cut = max(cut - 1, 0)
    return values[cut], values[n - 1 - cut]


def ratio(ours, theirs, key):
    """The ratio of two engines in each turn: median, and the ends of the interval."""
    ratios = [our[key] / their[key] for our, their in zip(ours, theirs)]
    return (statistics.median(ratios), *interval(ratios))


def weight_mb(engine, runs, file_bytes):
    """The weights that a step of an engine reads, in MB."""
    if engine == PEER:
        return file_bytes["weight_mb"]
    return median(runs, "step_weight_mb")


def floor_share(args, engine, runs, file_bytes, batch, context):
    """The share of the least time in a decode step's time. None if the bandwidth was not measured."""
    kv_mb = batch * (context + args.gen / 2) * file_bytes["kv_token_bytes"] / 1e6
    step_mb = weight_mb(engine, runs, file_bytes) + kv_mb
    if median(runs, "read_gb_s") is None:
        return None
    return statistics.median(step_mb / run["read_gb_s"] / run["t_step_ms"] for run in runs)


def table_row(args, file, file_bytes, batch, context, runs):
    """The cells of a row, by column."""
    cells = {"file": file.name, "batch": batch, "context": context}
    number = lambda form, value: "–" if value is None else form.format(value)
    with_interval = lambda values: "{:.2f}x ({:.2f}–{:.2f})".format(*values)
    first, *rest = [engine for engine in runs if engine.startswith("galley")]
    both = [first, *rest, PEER]
    for engine in both:
        cells[f"{engine} decode"] = number("{:.1f}", median(runs[engine], "decode_tok_s"))
    cells["decode ratio"] = with_interval(ratio(runs[first], runs[PEER], "decode_tok_s"))
    for engine in both:
        share = floor_share(args, engine, runs[engine], file_bytes, batch, context)
        cells[f"{engine} of its floor"] = number("{:.0%}", share)
    for engine in [engine for engine in both + ["torch"] if engine in runs]:
        cells[f"{engine} prefill"] = number("{:.0f}", median(runs[engine], "prefill_tok_s"))
    cells["prefill ratio"] = with_interval(ratio(runs[first], runs[PEER], "prefill_tok_s"))
    for other in rest:
        cells[f"decode over {other}"] = with_interval(ratio(runs[first], runs[other], "decode_tok_s"))
        sizes = [weight_mb(engine, runs[engine], file_bytes) for engine in (other, first)]
        cells[f"weights of {other}"] = f"{sizes[0] / sizes[1]:.2f}x"
    for engine in both:
        cells[f"{engine} peak MB"] = number("{:.0f}", median(runs[engine], "peak_rss_mb"))
    for engine in (first, PEER):
        cells[f"read GB/s beside {engine}"] = number("{:.0f}", median(runs[engine], "read_gb_s"))
    return cells


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--galley", default="target/release/galley")
    parser.add_argument("--files", type=Path, nargs="+", required=True, help="GGUF files")
    parser.add_argument("--hf", help="the same weights as a Hugging Face directory, for torch's prefill in bf16")
    parser.add_argument("--text", required=True, help="folder of .txt files")
    parser.add_argument("--rows", nargs="+", default=["1x512"], metavar="BATCHxCONTEXT")
    parser.add_argument("--gen", type=int, default=32, help="tokens to generate per sequence")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--galley-weights", nargs="+", default=[""], metavar="FORMAT",
                        help="formats of Galley's weights (galley bench --weights), each an engine;\n"
                             "the first is compared with llama.cpp, and with every other one")
    parser.add_argument("--galley-cpu", help="instruction set of Galley's kernels, such as avx2")
    parser.add_argument("--peer-python", default=sys.executable, help="Python with the peers: here this one")
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    return parser.parse_args()


def main():
    """Measures every file and row, and prints the table as it grows."""
    args = parse_arguments()
    header = None
    for file in args.files:
        file_bytes = last_json([args.peer_python, PEERS / "step_bytes.py", file])[-1]
        for text in args.rows:
            batch, context = map(int, text.split("x"))
            runs = measure(args, file, batch, context)
            cells = table_row(args, file, file_bytes, batch, context, runs)
            if header != list(cells):
                header = list(cells)
                print("\n| " + " | ".join(header) + " |\n|---|" + "---:|" * (len(header) - 1))
            print("| " + " | ".join(map(str, cells.values())) + " |", flush=True)
            if args.out:
                with args.out.open("a") as out:
                    out.write(json.dumps({**cells, "file_bytes": file_bytes, "runs": runs}) + "\n")


if __name__ == "__main__":
    main()
