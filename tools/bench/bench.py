#!/usr/bin/env python3
"""Measures this machine and writes docs/benchmarks.md: every number beside its floor, with the command that made it.

The JSON lines of `salamander bench` become one table; what the other programs print is shown as it is. oneDNN's
yardsticks run on one thread like ours (OMP_NUM_THREADS).
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

MATRIX_PRODUCTS = {"matmul", "matmul_logits"}
ATTENTION = {"select_blocks", "attend_blocks"}

GPU_HEADING = "## On a GPU"

INTRO = """# Benchmarks

Written by `make bench`; run it again to have this machine's numbers. Times are wall clock, of one run.

| | |
|---|---|
| machine | {cpu}, {cores} cores, {memory} GB |
| commit | {commit} |
| date | {date} |
"""

ENGINE = """
## Whole model, one process

`OMP_NUM_THREADS=1 {command}`

The floor is the time that all arithmetic (decoding: or all bytes) takes at the machine's best rates; "products" is the
time of the same matrix products alone; both measured in the same run. "Inner" is the share of the time spent in matrix
products or in the inner loops of stage 1 and stage 2. {rates}

| | threads | tokens/s | floor, tokens/s | time over floor | over products | inner | largest shares |
|---|---|---|---|---|---|---|---|
{rows}
"""


def run(command):
    print("bench:", " ".join(command), file=sys.stderr, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800, env=environment).stdout


def shown(command, root):
    return " ".join(part.replace(str(root) + "/", "") for part in command)


def engine_rows(threads, lines):
    rates, rows = [], []
    for line in lines:
        entry = json.loads(line)
        if entry["what"] == "rates":
            rates.append(f"{entry['backend']}: product of two 2048² matrices {entry['flops'] / 1e9:.0f} GFLOP/s, "
                         f"copy {entry['bytes_per_s'] / 1e9:.1f} GB/s read and written.")
            continue
        ops, seconds = entry["op_seconds"], entry["seconds"]
        floor = entry["floor_seconds"]
        inner = sum(value for name, value in ops.items() if name in MATRIX_PRODUCTS | ATTENTION) / seconds
        largest = sorted(ops.items(), key=lambda item: -item[1])[:4]
        shares = ", ".join(f"{name} {100 * value / seconds:.0f}%" for name, value in largest)
        rows.append(f"| {entry['what']} | {threads} | {entry['tokens_per_s']:,.0f} | {entry['tokens'] / floor:,.0f} | "
                    f"{seconds / floor:.2f} | {seconds / entry['matmul_seconds']:.2f} | {100 * inner:.0f}% | {shares} |")
    return rates, rows


def machine(root):
    info = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) // 1_000_000
    commit = subprocess.run(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True,
                            check=False).stdout.strip() or "unknown"
    return {"cpu": cpu, "cores": sum(line.startswith("processor") for line in info), "memory": memory,
            "commit": commit, "date": datetime.date.today().isoformat()}


def kept_gpu_section(path):
    """What was measured on GPU machines stays: this machine cannot measure it again."""
    text = path.read_text() if path.exists() else ""
    at = text.find(GPU_HEADING)
    return "\n" + text[at:] if at >= 0 else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="folder of the built programs")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write")
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    binaries = args.bin.resolve()
    model = root / "tools/demo/sala-12m"

    rates, rows = [], []
    for threads in (1, 2):
        command = [str(binaries / "salamander"), "bench", f"--model={model}", f"--threads={threads}",
                   "--prompt_tokens=8192,32768,131072", "--json"]
        of_these = engine_rows(threads, run(command).splitlines())
        rates += of_these[0]
        rows += of_these[1]
    parts = [INTRO.format(**machine(root)),
             ENGINE.format(command=shown(command, root), rates=" ".join(rates), rows="\n".join(rows))]
    for title, program in (("Kernels, one thread", "kernels_bench"), ("Streams: codecs, checksum, UCX", "stream_bench"),
                           ("Router, with workers that answer at once", "router_bench")):
        command = [str(binaries / program)]
        output = run(command).strip()
        if "|---" not in output:
            output = f"```\n{output}\n```"
        parts.append(f"\n## {title}\n\n`OMP_NUM_THREADS=1 {shown(command, root)}`\n\n{output}\n")
    args.out.write_text("".join(parts) + kept_gpu_section(args.out))
    print(f"bench: wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
