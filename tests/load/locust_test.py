#!/usr/bin/env python3
"""locust on a cluster of this machine: bounded in users and time, no request may fail."""
import argparse
import pathlib
import subprocess
import sys

from served import Served


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--model", default="tools/demo/sala-12m")
    parser.add_argument("--locust", default="build/venv/bin/locust")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=20)
    flags = parser.parse_args()
    with Served(flags.bin, flags.model) as cluster:
        before = cluster.idle_ledgers()
        locust = [flags.locust, "-f", str(pathlib.Path(__file__).with_name("locustfile.py")), "--headless", "--only-summary",
                  f"--users={flags.users}", "--spawn-rate=4", f"--run-time={flags.seconds}s", "--stop-timeout=120s",
                  f"--host={cluster.target}"]
        done = subprocess.run(locust, check=False, timeout=flags.seconds + 180)
        after = cluster.idle_ledgers()
    if after != before:
        print(f"FAIL the ledgers: {after} for {before}")
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
