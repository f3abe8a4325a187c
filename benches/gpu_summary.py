#!/usr/bin/env python3
"""Makes the tables of RESULTS.md out of the log of `benches/gpu-check run`.

    python benches/gpu_summary.py log.txt

First the aims beside the measurements, then every table and line of results, step by step. The exit status is 1
where a step failed, was cut off, or left no results.
"""

import json
import re
import sys

# Lines of the log that are results, beside tables and JSON.
RESULT = re.compile(r"^(copy bandwidth|peer copy bandwidth|\d+ \d+: the pool holds|broken:|skipped:|FAILED|torch |test result|commit )")
GRID = re.compile(r"^\d+ \d+ (streaming-llm|snap-kv):\d+ \d+ ")
# Output that a successful step must have printed: a program that ends without an error but prints
# nothing has failed.
LEAVES = {
    "info": [r"commit "],
    "parity": [r"test result: ok\. [1-9]"],
    "sanitizer": [r"skipped: |=+ ERROR SUMMARY: 0 errors"],
    "kernels": [r"\| decode attention \|", r"\| \d+ sequences \|", r"\| scattered tokens \|", r"\| \S+ head \|"],
    "peers": [r"skipped: |\| torch SDPA \|", r"skipped: |\| cuBLAS "],
    "grid": [GRID.pattern],
    "engine": [r"\{.*\"drafter\":\s*\""],
}


def steps(lines):
    """Names, headers and lines of the steps, and how each ended (None: it was cut off)."""
    found = []
    for line in lines:
        if match := re.match(r"=== (\w+) \((.*)\)$", line):
            found.append([match[1], match[2], [], None])
        elif match := re.match(r"=== (\w+): (\d+) failed, (\d+) s$", line):
            if found:
                found[-1][3] = (int(match[2]), int(match[3]))
        elif found:
            found[-1][2].append(line)
    return found


def state(name, lines, end):
    """How a step ended, in a cell: the number of its failures, or a word for its fault."""
    if end is None:
        return "cut off"
    missing = [pattern for pattern in LEAVES.get(name, []) if not any(re.match(pattern, line) for line in lines)]
    return "no results" if missing and end[0] == 0 else str(end[0])


def reason(lines):
    """The last thing that a command said of why it failed."""
    for before, line in reversed(list(zip([""] + lines, lines))):
        if "panicked at" in before or line.startswith(("error:", "no GPU")):
            return line
    return None


def tables(lines):
    """Rows of markdown tables, by the first cell of their header."""
    by_head, head = {}, None
    for line in lines:
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if head is None:
            head = by_head.setdefault(cells[0], [])
        elif not set(line) <= set("|-: "):
            head.append(cells)
    return by_head


def number(cell):
    """The number that a cell begins with."""
    return float(re.match(r"[-+0-9.]+", cell)[0])


def grid_rows(lines):
    """Rows of MagicDec's grid by model, as dictionaries."""
    rows, model = [], "?"
    for line in lines:
        if match := re.match(r"random weights of the shape of (\S+):", line):
            model = match[1]
        if GRID.match(line):
            cells = line.split()
            names = ["batch", "context", "draft", "gamma", "target", "drafting", "verify", "ratio", "alpha", "speedup"]
            row = dict(zip(names, cells)) | {"model": model, "rooflines": [float(cell) for cell in cells[10:12]]}
            rows.append(row)
    return rows


def drafts(lines):
    """Rows of `galley bench` that drafted."""
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return [row for row in rows if row.get("drafter")]


def asked(lines):
    """Rows of the table of aims: the quantity, its aim, its measurement, and whether the aim is reached."""
    by_head = tables(lines)
    for head, measurement, aim, column, reached, best in [
        ("decode attention", "decode attention, of the copy bandwidth", "at least 85 %", 4, lambda x: x >= 85, min),
        ("verification", "verification of 4 and 8 rows, of a decode", "at most 1.10x", 4, lambda x: x <= 1.10, max),
        ("view", "scattered tokens, of the same view by blocks", "at least 80 %", 6, lambda x: x >= 80, min),
    ]:
        rows = by_head.get(head, [])
        if head == "verification":
            rows = [row for row in rows if int(row[2]) >= 4]
        if head == "view":
            rows = [row for row in rows if row[0] == "scattered tokens"]
        values = [number(row[column]) for row in rows]
        if values:
            worst = best(values)
            yield measurement, aim, f"{worst:g} at worst, {len(values)} sizes", reached(worst)

    for row in grid_rows(lines):
        if row["model"] != "llama-3.1-8b" or row["gamma"] != "1" or not row["rooflines"]:
            continue
        if (row["batch"], row["context"], row["draft"]) == ("32", "8192", "streaming-llm:512"):
            share = row["rooflines"][0] * 100
            yield "8B: decode step at 32 × 8192, of the roofline", "at least 85 %", f"{share:.1f} %", share >= 85
            times = 1 / row["rooflines"][1]
            yield "8B: draft step with K = 512, of its roofline", "at most 1.25x", f"{times:.2f}x", times <= 1.25
    rows = [row for row in grid_rows(lines) if row["model"] == "llama-3.1-8b"]
    if rows:
        size = max(int(row["batch"]) * int(row["context"]) for row in rows)
        largest = [row for row in rows if int(row["batch"]) * int(row["context"]) == size]
        row = max(largest, key=lambda row: float(row["speedup"]))
        where = f"{row['batch']} × {row['context']}, {row['draft']}, γ {row['gamma']}, α {row['alpha']}"
        speedup = float(row["speedup"])
        yield "8B: speedup at the largest batch × context", "over 2.5x", f"{speedup:.2f}x ({where})", speedup > 2.5

    rows = drafts(lines)
    if rows:
        overhead = max(row["overhead_ms"] for row in rows)
        yield "overhead a round (SmolLM2)", "under 0.3 ms", f"{overhead:.3f} ms at most", overhead < 0.3
    for batch in sorted({row["batch"] for row in rows}):
        row = max((row for row in rows if row["batch"] == batch), key=lambda row: row["speedup"])
        text = f"{row['speedup']:.2f}x ({row['drafter']}, γ {row['draft_length']}), output identical"
        yield f"SmolLM2 at {batch} × {row['context']}: best drafter", "measured", text, None


def beside(lines):
    """Our attention and products beside the peers' of the same size."""
    by_head = tables(lines)
    ours = {(row[1], "1"): number(row[2]) for row in by_head.get("decode attention", [])}
    ours |= {(row[1], row[2]): number(row[3]) for row in by_head.get("verification", [])}
    for row in by_head.get("peer attention", []):
        # A library that is not installed prints no sizes.
        if mine := ours.get((row[1], row[2])):
            yield f"attention over {row[1]}, {row[2]} rows: {row[0]}", mine, number(row[3])
    products = {(row[0], row[2]): number(row[3]) for row in by_head.get("product", [])}
    for row in by_head.get("peer product", []):
        if mine := products.get((row[0].removeprefix("cuBLAS "), row[2])):
            yield f"{row[0]}, {row[2]} rows", mine, number(row[3])


def main():
    """Read the log and print."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n") for line in file]
    found = steps(lines)
    print("## GPU check\n\n| step | begun | failed | s |\n|---|---|---:|---:|")
    states = [state(name, body, end) for name, _, body, end in found]
    for (name, begun, _, end), failed in zip(found, states):
        print(f"| {name} | {begun} | {failed} | {end[1] if end else ''} |")
    is_whole = bool(states) and all(failed == "0" for failed in states)
    if not is_whole:
        print("\n**Not all is well:** tables hold the results that were checked before a step failed.")
    rows = list(asked(lines))
    if rows:
        print("\n| measurement | asked for | measured | |\n|---|---|---|---|")
        for measurement, aim, measured, reached in rows:
            print(f"| {measurement} | {aim} | {measured} | {'' if reached is None else 'reached' if reached else 'short'} |")
    pairs = list(beside(lines))
    if pairs:
        print("\n| beside | Galley µs | peer µs | Galley's speed over the peer's |\n|---|---:|---:|---:|")
        for measurement, mine, theirs in pairs:
            print(f"| {measurement} | {mine:.1f} | {theirs:.1f} | {theirs / mine:.2f}x |")
    for name, _, body, _ in found:
        print(f"\n### {name}\n")
        in_table, said = False, []
        for line in body:
            said = [] if line.startswith("$ ") else [*said, line]
            if line.startswith("FAILED") and (why := reason(said)):
                print(f"\n{why}")
            is_row = line.startswith("|")
            if is_row:
                # Markdown needs an empty line before a table.
                print(line if in_table else f"\n{line}")
            elif RESULT.match(line):
                print(f"\n{line}")
            in_table = is_row
        grid = grid_rows(body)
        if grid:
            print("\nTimes in ms, host work included; weights are random: costs do not depend on the values. Speedups "
                  "follow from the measured times and published acceptance rates α.")
            print("\n| model | batch | context | draft | γ | target | draft | verify | verify / target | α | speedup "
                  "| roofline / target | roofline / draft |")
            print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
            for row in grid:
                cells = [row[key] for key in ("model", "batch", "context", "draft", "gamma", "target", "drafting", "verify",
                                              "ratio", "alpha", "speedup")]
                cells += [f"{share * 100:.1f} %" for share in row["rooflines"]] or ["", ""]
                print("| " + " | ".join(cells) + " |")
        drafted = drafts(body)
        if drafted:
            print("\n| drafter | batch | context | γ | budget | accepted | target ms | draft ms | verify ms | other ms | measured "
                  "| its parts allow |")
            print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
            for row in drafted:
                print(f"| {row['drafter']} | {row['batch']} | {row['context']} | {row['draft_length']} | {row['kv_budget']} "
                      f"| {row['accept_rate'] * 100:.0f} % | {row['t_target_ms']:.2f} | {row['t_draft_ms']:.2f} "
                      f"| {row['t_verify_ms']:.2f} | {row['overhead_ms']:.3f} | {row['speedup']:.2f}x "
                      f"| {row['predicted_speedup']:.2f}x |")
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
