"""Galley beside llama.cpp and torch: the same weights, the same texts, one run.

Every row (batch, context) is measured several times, the engines taking turns, so that all see
the machine's good and bad minutes; medians are printed as a Markdown table and written as JSON
lines. Needs a Python with the peers (benches/peers/README.md says how to make one).

    python benches/compare.py --galley target/release/galley --gguf smollm2-bf16.gguf \
        --hf smollm2-bf16/ --text texts/ --rows 1x512 1x4096 8x2048
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def last_json(command, env=None):
    """Runs a command and returns the JSON objects it prints, one a line."""
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def galley(args, batch, context):
    """One measurement of Galley."""
    command = [args.galley, "bench", "-m", args.gguf, "--text", args.text, "--json"]
    command += ["--batch", str(batch), "--context", str(context), "--gen", str(args.gen)]
    return last_json(command)[-1]


def llamacpp(args, batch, context):
    """One measurement of llama.cpp at its best: flash attention on, a KV stream per sequence."""
    command = [sys.executable, HERE / "peers" / "llamacpp.py", "--model", args.gguf]
    command += ["--data", args.text, "--contexts", str(context), "--batch", str(batch)]
    command += ["--repeats", "1", "--steps", str(args.gen)]
    command += ["--kv-unified", "off"]
    rows = last_json(command)
    return max(rows, key=lambda row: row["decode_tok_s"])


def torch(args, batch, context):
    """One measurement of transformers' prefill in bf16."""
    command = [sys.executable, HERE / "peers" / "torch_prefill.py", "--model", args.hf]
    command += ["--data", args.text, "--contexts", str(context), "--batch", "1", "--repeats", "1"]
    return last_json(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})[-1]


def measure(args, batch, context):
    """Medians of one row, with the ratios taken between medians."""
    runs = {"galley": [], "llama.cpp": [], "torch": []}
    for _ in range(args.repeats):
        runs["galley"].append(galley(args, batch, context))
        runs["llama.cpp"].append(llamacpp(args, batch, context))
        if batch == 1 and args.hf:
            runs["torch"].append(torch(args, batch, context))

    def median(engine, key):
        # An engine gives null for a value that it did not measure: a GPU has no floor here.
        values = [run[key] for run in runs[engine] if run[key] is not None]
        return statistics.median(values) if values else None

    row = {"batch": batch, "context": context}
    for engine in runs:
        row[f"{engine} prefill"] = median(engine, "prefill_tok_s")
        if engine != "torch":
            row[f"{engine} decode"] = median(engine, "decode_tok_s")
    peers = [row["llama.cpp prefill"], row["torch prefill"] or 0]
    row["prefill ratio"] = row["galley prefill"] / max(peers)
    row["decode ratio"] = row["galley decode"] / row["llama.cpp decode"]
    for key in ["decode_floor_fraction", "prefill_floor_fraction", "read_gb_s", "peak_gflop_s"]:
        row[key] = median("galley", key)
    return row


COLUMNS = [
    ("batch", "{:.0f}"), ("context", "{:.0f}"),
    ("galley decode", "{:.1f}"), ("llama.cpp decode", "{:.1f}"), ("decode ratio", "{:.2f}x"),
    ("decode_floor_fraction", "{:.0%}"),
    ("galley prefill", "{:.0f}"), ("llama.cpp prefill", "{:.0f}"), ("torch prefill", "{:.0f}"),
    ("prefill ratio", "{:.2f}x"), ("prefill_floor_fraction", "{:.0%}"), ("read_gb_s", "{:.0f}"),
]


def main():
    """Measures every row and prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--galley", default="target/release/galley")
    parser.add_argument("--gguf", required=True, help="the weights in BF16, as GGUF")
    parser.add_argument("--hf", help="the same weights as a Hugging Face directory, for torch")
    parser.add_argument("--text", required=True, help="folder of .txt files")
    parser.add_argument("--rows", nargs="+", default=["1x512"], metavar="BATCHxCONTEXT")
    parser.add_argument("--gen", type=int, default=32, help="tokens to generate per sequence")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    args = parser.parse_args()
    print("| " + " | ".join(name for name, _ in COLUMNS) + " |")
    print("|" + "---:|" * len(COLUMNS), flush=True)
    for text in args.rows:
        batch, context = map(int, text.split("x"))
        row = measure(args, batch, context)
        cells = [form.format(row[name]) if row[name] is not None else "-" for name, form in COLUMNS]
        print("| " + " | ".join(cells) + " |", flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
