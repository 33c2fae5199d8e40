#!/usr/bin/env python3
"""A cluster under load on this machine: how much it can take, a long time of nearly that, and twice as much.

The cluster is `salamander serve`, the load `salamander bench serve` over loopback. Checked, with the flags' limits:
  at 80% of the capacity   no error; afterwards every ledger as it was, to the byte, and every process as large as two
                           minutes after the beginning, both looked at with nothing running
  at 200%                  refusals come fast; all that is accepted completes and keeps its service levels
Capacity is that of the same mix of lengths when all of it is there at once.
"""
import argparse
import json
import pathlib
import sys

from served import Served


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--model", default="tools/demo/sala-12m")
    parser.add_argument("--input_max", type=int, default=100000, help="longest prompt; the shortest has 100 tokens")
    parser.add_argument("--output_max", type=int, default=256, help="most tokens asked for; the fewest are 16")
    parser.add_argument("--capacity_requests", type=int, default=60)
    parser.add_argument("--warm_seconds", type=float, default=120)
    parser.add_argument("--steady_seconds", type=float, default=480, help="after the warm ones")
    parser.add_argument("--overload_seconds", type=float, default=120)
    parser.add_argument("--max_queue_seconds", type=float, default=10)
    parser.add_argument("--slo_ttft", type=float, default=60)
    parser.add_argument("--slo_itl", type=float, default=0.2)
    parser.add_argument("--refused_p99", type=float, default=0.05)
    parser.add_argument("--memory_growth", type=float, default=0.05, help="largest part by which a process may grow")
    parser.add_argument("--output", help="write all reports to this file as JSON")
    return parser.parse_args()


class Checks:
    """Prints what holds and what does not."""

    def __init__(self):
        self.failed = False

    def expect(self, good: bool, text: str):
        self.failed |= not good
        print("ok  " if good else "FAIL", text, flush=True)


def steady(flags, mix, checks) -> dict:
    with Served(flags.bin, flags.model) as cluster:
        before = cluster.idle_ledgers()
        burst = cluster.load(rate=1000, max_requests=flags.capacity_requests, drain=600, seed=1, **mix)
        checks.expect(not burst["errors"], f"the burst that tells the capacity has no errors: {burst['errors']}")
        capacity = burst["completed_per_s"]
        print(f"capacity: {capacity:.3f} requests/s, {burst['prompt_tokens_per_s']:.0f} prompt tokens/s\n")
        reports, idle = [], []
        for seed, seconds in ((2, flags.warm_seconds), (3, flags.steady_seconds)):
            report = cluster.load(rate=0.8 * capacity, duration=seconds, drain=300, seed=seed, **mix)
            sent = report["requests"]["sent"]
            checks.expect(not report["errors"] and report["requests"]["completed"] == sent,
                          f"80% for {seconds:g} s: {sent} requests, errors: {report['errors']}")
            after = cluster.idle_ledgers()
            checks.expect(after == before, "the ledgers are as before" if after == before else f"{after} for {before}")
            idle.append(cluster.idle_resident())
            reports.append(report)
        for name, bytes_then in idle[0].items():
            growth = idle[1][name] / bytes_then - 1
            checks.expect(abs(growth) <= flags.memory_growth,
                          f"{name}: {bytes_then / 1e6:.1f} MB resident after {flags.warm_seconds:g} s, "
                          f"{idle[1][name] / 1e6:.1f} MB after {flags.steady_seconds:g} s more: {growth:+.2%}")
        return {"capacity_per_s": capacity, "burst": burst, "steady": reports, "memory": cluster.memory,
                "idle_resident": idle}


def overload(flags, mix, capacity, checks) -> dict:
    with Served(flags.bin, flags.model, f"--max_queue_seconds={flags.max_queue_seconds:g}") as cluster:
        before = cluster.idle_ledgers()
        # Until the workers have measured their rates nothing is refused.
        cluster.load(rate=1000, max_requests=4, drain=300, seed=4, **mix)
        report = cluster.load(rate=2 * capacity, duration=flags.overload_seconds, drain=300, seed=5,
                              slo_ttft=flags.slo_ttft, slo_itl=flags.slo_itl, **mix)
        requests, refused = report["requests"], report["refused_s"]
        checks.expect(refused["count"] > 0, f"200%: {refused['count']} of {requests['sent']} requests are refused")
        checks.expect(refused["p99"] < flags.refused_p99,
                      f"within {refused['p99'] * 1e3:.1f} ms (p99), limit {flags.refused_p99 * 1e3:g} ms")
        checks.expect(list(report["errors"]) == ["RESOURCE_EXHAUSTED"], f"errors: {report['errors']}")
        checks.expect(requests["within_slo"] == requests["completed"],
                      f"{requests['within_slo']} of {requests['completed']} accepted requests have their first token "
                      f"within {flags.slo_ttft:g} s and {flags.slo_itl:g} s a token")
        after = cluster.idle_ledgers()
        checks.expect(after == before, "the ledgers are as before" if after == before else f"{after} for {before}")
        return report


def main() -> int:
    flags = parse_flags()
    mix = {"input_max": flags.input_max, "output_max": flags.output_max}
    checks = Checks()
    result = steady(flags, mix, checks)
    result["overload"] = overload(flags, mix, result["capacity_per_s"], checks)
    if flags.output:
        pathlib.Path(flags.output).write_text(json.dumps(result))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
