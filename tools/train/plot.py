#!/usr/bin/env python3
"""The loss curve of train.py as a picture: plot.py losses.csv [losses of the run after it]... curve.png"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def read(path, first):
    """The rows of a log; their steps count on from `first`."""
    with open(path, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "step": row["step"] + first} for row in rows]


def main(*paths):
    rows = []
    for path in paths[:-1]:
        rows += read(path, rows[-1]["step"] if rows else 0)
    steps = [row["step"] for row in rows]
    figure, (losses, answers) = plt.subplots(2, 1, sharex=True, figsize=(9, 6), gridspec_kw={"height_ratios": [2, 1]})
    losses.plot(steps, [row["text_loss"] for row in rows], label="text, nats a token")
    losses.plot(steps, [row["answer_loss"] for row in rows], label="answers, nats a token")
    losses.plot(steps, [row["selection_loss"] or float("nan") for row in rows], label="selection", alpha=0.5)
    losses.set_ylim(0, 6)
    losses.legend(loc="center", bbox_to_anchor=(0.45, 0.7))
    answers.plot(steps, [row["answer_tokens_right"] for row in rows])
    answers.set_ylim(0.9, 1.001)
    answers.set_ylabel("answer tokens right")
    answers.set_xlabel("step")
    before = None
    for row in rows:
        phase = (row["length"], row["sparse"])
        if phase != before:
            for axes in (losses, answers):
                axes.axvline(row["step"], color="grey", linewidth=0.5)
            losses.text(row["step"], 5.9, f" {int(row['length'])} {'sparse' if row['sparse'] else 'dense'}", fontsize=8, rotation=90,
                        verticalalignment="top")
            before = phase
    figure.tight_layout()
    figure.savefig(paths[-1], dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
