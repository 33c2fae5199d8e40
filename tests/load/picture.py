#!/usr/bin/env python3
"""Draws what load_test.py --output wrote: picture.py REPORT.json PICTURE.png"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def draw_memory(axes, result):
    memory = result["memory"]
    for name in (name for name in memory[0] if name != "at"):
        axes.plot([look["at"] for look in memory], [look[name] / 1e6 for look in memory], label=name, linewidth=1)
    for report in [result["burst"], *result["steady"]]:
        axes.axvspan(report["begin"], report["begin"] + report["seconds"], color="0.93")
    axes.set(title="Resident memory: a burst, then 80% of the capacity (grey: under load)", xlabel="seconds", ylabel="MB")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def draw_first_tokens(axes, result):
    for label, reports, color in (("80% of the capacity", result["steady"], "C0"),
                                  ("200%, accepted", [result["overload"]], "C1")):
        done = [sample for report in reports for sample in report["samples"] if sample["outcome"] == "OK"]
        axes.scatter([sample["input"] for sample in done], [sample["ttft_s"] for sample in done], s=9, alpha=0.6,
                     color=color, label=label)
    axes.axhline(result["overload"]["slo"]["ttft_s"], color="C3", linewidth=1, linestyle="--", label="service level")
    axes.set(title="Time to first token", xlabel="prompt, tokens", ylabel="seconds", xscale="log", yscale="log")
    axes.legend(fontsize=8)


def draw_overload(axes, result):
    samples = result["overload"]["samples"]
    for label, keep in (("arrived", lambda sample: True), ("accepted", lambda sample: sample["outcome"] == "OK"),
                        ("refused", lambda sample: sample["outcome"] == "RESOURCE_EXHAUSTED")):
        times = [sample["at"] for sample in samples if keep(sample)]
        axes.step(times, range(1, len(times) + 1), where="post", label=label)
    refused = result["overload"]["refused_s"]
    axes.set(title=f"200%: refused in {refused['p50'] * 1e3:.1f} ms (median), {refused['p99'] * 1e3:.1f} ms (p99)",
             xlabel="seconds", ylabel="requests so far")
    axes.legend(fontsize=8)


def main():
    result = json.loads(pathlib.Path(sys.argv[1]).read_text())
    figure, axes = pyplot.subplots(1, 3, figsize=(18, 5), layout="constrained")
    draw_memory(axes[0], result)
    draw_first_tokens(axes[1], result)
    draw_overload(axes[2], result)
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
