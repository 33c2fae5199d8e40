#!/usr/bin/env python3
"""Checks the tree's own rules: which room may include which, include guards, and file lengths."""
import pathlib
import re
import subprocess
import sys

# Room -> rooms it may include, besides itself.
ALLOWED = {
    "common/base": set(),
    "kernels": {"common/base"},
    "common/model": {"common/base"},
    "common/engine": {"common/base", "common/model", "kernels"},
    "common/transport": {"common/base"},
    "common/stream": {"common/base", "common/transport", "proto"},
    "common/service": {"common/base", "proto"},
    "common/worker": {"common/base", "common/model", "common/engine", "common/stream", "common/transport",
                      "common/service", "kernels", "proto"},
    "router": {"common/base", "common/model", "common/service", "proto"},
    "prefill_worker": {"common/base", "common/model", "common/engine", "common/stream", "common/transport",
                       "common/service", "common/worker", "kernels", "proto"},
    "clients/cpp": {"common/base", "common/service", "proto"},
    "clients/cli": {"clients/cpp", "common/base", "common/model", "common/engine", "common/service", "kernels",
                    "proto"},
}
ALLOWED["decode_worker"] = ALLOWED["prefill_worker"]
ALLOWED["decode_worker/both_roles"] = ALLOWED["decode_worker"] | {"decode_worker", "prefill_worker"}
MAX_LINES = 800


def room_of(path):
    for room in sorted(ALLOWED, key=len, reverse=True):
        if path.startswith(room + "/"):
            return room
    return "proto" if path.startswith("salamander/v1/") else None


def check(path):
    faults = []
    text = pathlib.Path(path).read_text()
    lines = text.count("\n")
    if lines > MAX_LINES:
        faults.append(f"{path}: {lines} lines, the limit is {MAX_LINES}")
    if path.endswith((".h", ".cuh")):
        guard = "SALAMANDER_" + re.sub(r"[/.]", "_", path).upper() + "_"
        if f"#ifndef {guard}\n#define {guard}\n" not in text:
            faults.append(f"{path}: include guard is not {guard}")
    room = room_of(path)
    if room is None:
        return faults
    for target in re.findall(r'^#include "([^"]+)"', text, re.M):
        other = room_of(target)
        if other is not None and other != room and other not in ALLOWED[room]:
            faults.append(f"{path}: {room} must not include {target}")
    return faults


def main():
    files = subprocess.run(["git", "ls-files", "*.h", "*.cc", "*.cu", "*.cuh", "*.py"], capture_output=True, text=True, check=True)
    faults = [fault for path in files.stdout.split() for fault in check(path)]
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
