#!/usr/bin/env python3
"""Writes docs/metrics.md from what real processes serve, or checks it against them (--check).

Every process registers all its metrics when it starts, so that idle ones show them all. Some depend on flags: a router
is started with TLS and one with API keys, and what only they have is marked so.
"""
import argparse
import pathlib
import sys
import tempfile

from prometheus_client.parser import text_string_to_metric_families

from cluster import Authority, Cluster, ready_workers, scrape, wait_until, write_keys

REPO = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPO / "docs/metrics.md"
MODEL = REPO / "tools/demo/sala-12m"

# Labels whose values are the cluster's own.
OPEN_LABELS = {"key", "peer", "version"}
# How Prometheus writes histograms and summaries; no labels of ours.
PARTS = {"le", "quantile"}
# By the end of a name, without `_total`; the first that fits. A new metric needs one that does.
UNITS = {"timestamp_seconds": "Unix time in seconds", "start_time_seconds": "Unix time in seconds",
         "bytes_per_second": "bytes per second", "tokens_per_second": "tokens per second", "seconds": "seconds",
         "bytes": "bytes", "tokens": "tokens", "request_latencies": "microseconds", "requests": "requests",
         "workers": "workers", "items": "items", "spans": "spans", "threads": "threads", "fds": "file descriptors",
         "calls": "calls", "scrapes": "scrapes", "requeues": "requests", "reloads": "files", "checksum_failures": "items",
         "send_failures": "items", "stream_refused": "items", "key_limited": "requests", "unauthenticated": "calls",
         "batch_size": "sequences", "connected": "1 or 0", "info": "1"}

HEADER = """# Metrics

What every process serves at `/metrics` (`--metrics_listen`). This page is written by `make metrics-page` from the processes
themselves, and a test compares the two.

All metrics are there from a process's start, counters at 0, so that the first event of a kind is an increase. In brackets: a
histogram's lowest and highest bound. Labels without values take the cluster's own names. A process with both roles
(`salamander-worker`) serves two pages, one for each: `salamander_process_*` is on both, `salamander_memory_bytes` is on the
decode role's only, since there is one ledger.
"""
SECTIONS = [({"router", "prefill", "decode"}, "Every process"), ({"router"}, "Router"),
            ({"prefill", "decode"}, "Prefill and decode workers"), ({"prefill"}, "Prefill worker"),
            ({"decode"}, "Decode worker")]


class Family:
    """One metric, as several processes show it."""

    def __init__(self, name, kind, meaning):
        self.name, self.kind, self.meaning = name, kind, meaning
        self.labels = {}
        self.bounds = set()
        self.roles = set()
        self.condition = ""

    def add(self, samples):
        for sample in samples:
            for label, value in sample.labels.items():
                if label not in PARTS:
                    self.labels.setdefault(label, set()).add(value)
                elif label == "le" and value != "+Inf":
                    self.bounds.add(float(value))

    def row(self):
        unit = next((text for end, text in UNITS.items() if self.name.removesuffix("_total").endswith("_" + end)), None)
        if unit is None:
            raise ValueError(f"{self.name}: no unit is known for this name's end (UNITS)")
        kind = f"{self.kind} ({min(self.bounds):g} to {max(self.bounds):.7g})" if self.bounds else self.kind
        labels = "; ".join(f"`{label}`" + ("" if label in OPEN_LABELS else ": " + ", ".join(sorted(values)))
                           for label, values in sorted(self.labels.items()))
        meaning = f"{self.meaning} Only with {self.condition}." if self.condition else self.meaning
        return f"| `{self.name}` | {kind} | {unit} | {labels} | {meaning.replace('|', '&#124;')} |"


def read(families, pages, condition=""):
    """Adds what pages, each an address and a role, show. Raises ValueError if two processes disagree about a metric, or one
    says nothing of it. What is new is marked with the condition."""
    known = set(families)
    for address, role in pages:
        scrape(address)  # The pages tell of earlier scrapes too.
        for metric in text_string_to_metric_families(scrape(address)):
            # The parser takes the ending of counters away.
            name = metric.name + "_total" if metric.type == "counter" else metric.name
            family = families.setdefault(name, Family(name, metric.type, metric.documentation))
            if (family.kind, family.meaning) != (metric.type, metric.documentation) or not metric.documentation:
                raise ValueError(f"{name}: {metric.type}, \"{metric.documentation}\" at a {role}, elsewhere {family.kind}, "
                                 f"\"{family.meaning}\"")
            family.add(metric.samples)
            family.roles.add(role)
            if name not in known:
                family.condition = condition


def collect(bin_folder):
    """Of a whole idle cluster, by name; what only processes with certain flags have is marked so."""
    families = {}
    with tempfile.TemporaryDirectory(prefix="salamander-metrics-") as name:
        folder = pathlib.Path(name)
        with Cluster(bin_folder, MODEL, folder) as cluster:
            router = cluster.router()
            pages = [(router.metrics, "router")]
            pages += [(cluster.worker(role, f"{role}-0").metrics, role) for role in ("prefill", "decode")]
            pages += zip(cluster.worker("both", "both-0").addresses["metrics"], ("decode", "prefill"))
            wait_until(lambda: ready_workers(router) == 4, 60, "all workers are ready")
            read(families, pages)
            keys = cluster.router("router-keys", write_keys(folder, a={}))
            read(families, [(keys.metrics, "router")], "`--api_keys_file`")
        with Cluster(bin_folder, MODEL, folder, Authority(folder).flags(days=2)) as cluster:
            pages = [(cluster.router().metrics, "router")]
            pages += [(cluster.worker(role, f"{role}-0").metrics, role) for role in ("prefill", "decode")]
            read(families, pages, "`--tls_cert`")
    return families


def render(families):
    lines = [HEADER]
    for roles, title in SECTIONS:
        rows = [family.row() for name, family in sorted(families.items()) if family.roles == roles]
        if not rows:
            continue
        lines += [f"## {title}\n", "| metric | type | unit | labels | meaning |", "|---|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="build/bin", help="folder of the programs")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    page = render(collect(options.bin))
    if not options.check:
        PAGE.write_text(page)
        return 0
    now, then = page.splitlines(), PAGE.read_text().splitlines()
    for line in sorted(set(now) - set(then)):
        print(f"docs/metrics.md lacks: {line}")
    for line in sorted(set(then) - set(now)):
        print(f"docs/metrics.md has, but no process: {line}")
    if now != then:
        print("`make metrics-page` writes the page anew")
    return int(now != then)


if __name__ == "__main__":
    sys.exit(main())
