#!/usr/bin/env python3
"""Tables and heat map of eval.py's results: report.py results.jsonl [more.jsonl] --picture docs/evaluation.png

Prints Markdown. A suite's trials are pooled by length over all files.
"""
import argparse
import json
import math
import pathlib
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

DEPTHS = 10
NAMES = {"single": "one key", "four": "four keys", "distractors": "one key, six distractors", "keys8": "8 keys, near-identical names",
         "keys64": "64 keys, near-identical names", "last20": "last of 20 assignments"}


def tokens(length: int) -> str:
    return f"{length // 1024}K" if length < 1 << 20 else f"{length >> 20}M"


def table(header, rows) -> str:
    return "\n".join(["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]])


def by(results, *keys):
    groups = defaultdict(list)
    for result in results:
        groups[tuple(result[key] for key in keys)].append(result)
    return groups


def retrieval(results) -> str:
    groups = by([r for r in results if r["suite"] in NAMES], "suite", "length")
    lengths = sorted({length for _, length in groups})
    rows = []
    for suite, name in NAMES.items():
        cells = [groups.get((suite, length), []) for length in lengths]
        if any(cells):
            rows.append([name] + [f"{sum(r['right'] for r in c)} of {len(c)}" if c else "" for c in cells])
    return table(["exact answers", *map(tokens, lengths)], rows)


def heat_map(results, picture: pathlib.Path):
    groups = by([r | {"tenth": min(DEPTHS - 1, int(r["depth"] * DEPTHS))} for r in results if r["suite"] == "single"],
                "length", "tenth")
    lengths = sorted({length for length, _ in groups})
    share = [[sum(r["right"] for r in cell) / len(cell) if (cell := groups.get((length, tenth))) else math.nan
              for length in lengths] for tenth in range(DEPTHS)]
    figure, axes = plt.subplots(figsize=(1.5 + len(lengths), 4))
    image = axes.imshow(share, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(lengths)), map(tokens, lengths))
    axes.set_yticks(range(DEPTHS), [f"{10 * tenth}-{10 * tenth + 10}%" for tenth in range(DEPTHS)])
    for tenth, row in enumerate(share):
        for column, value in enumerate(row):
            axes.text(column, tenth, "" if math.isnan(value) else f"{value:.0%}", ha="center", va="center", fontsize=8)
    axes.set_xlabel("prompt tokens")
    axes.set_ylabel("depth of the key")
    figure.colorbar(image, label="exact answers")
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


def perplexity(results) -> str:
    """Perplexity by context, and the mean difference to the shortest over the same tokens with its standard error."""
    groups = by([r for r in results if r["suite"] == "perplexity"], "length")
    losses = {length: {r["trial"]: -r["logprob"] for r in group} for (length,), group in groups.items()}
    rows, first = [], None
    for length in sorted(losses):
        now = losses[length]
        first = first or now
        gaps = [now[trial] - first[trial] for trial in now.keys() & first.keys()]
        mean = sum(gaps) / len(gaps)
        error = math.sqrt(sum((g - mean) ** 2 for g in gaps) / max(1, len(gaps) - 1) / len(gaps))
        rows.append([tokens(length), str(len(now)), f"{math.exp(sum(now.values()) / len(now)):.2f}", f"{mean:+.3f} ± {error:.3f}"])
    return table(["context", "tokens scored", "perplexity", "nats a token, against the shortest"], rows)


def divergence(results, base: str) -> str:
    """How far the log-probabilities of a cluster's greedy tokens are from those of `base`."""
    groups = by([r for r in results if r["suite"] == "logprobs"], "label")
    rows = []
    for (label,), group in sorted(groups.items()):
        same, all_tokens, worst = 0, 0, 0.0
        reference = {(r["length"], r["trial"]): r for r in groups[(base,)]}
        for result in group:
            other = reference[(result["length"], result["trial"])]
            for mine, theirs, top, other_top in zip(result["tokens"], other["tokens"], result["top"], other["top"]):
                all_tokens += 1
                same += mine == theirs
                if mine != theirs:
                    break  # what follows has another context
                known = dict(map(tuple, other_top))
                worst = max([worst] + [abs(p - known[t]) for t, p in top if t in known])
        rows.append([label, str(all_tokens), str(same), f"{worst:.2e}"])
    return table(["cluster", "tokens", "the same", "largest difference of a log-probability"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path)
    parser.add_argument("--picture", type=pathlib.Path, required=True)
    parser.add_argument("--base", default="raw, 1 prefill worker", help="label of the cluster that others are held against")
    options = parser.parse_args()
    results = [json.loads(line) for path in options.results for line in path.read_text().splitlines()]
    heat_map(results, options.picture)
    suites = {r["suite"] for r in results}
    parts = [(set(NAMES), retrieval(results)), ({"perplexity"}, perplexity(results)),
             ({"logprobs"}, divergence(results, options.base) if "logprobs" in suites else "")]
    print("\n\n".join(text for names, text in parts if names & suites))


if __name__ == "__main__":
    main()
