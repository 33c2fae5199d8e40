#!/usr/bin/env python3
"""Becomes a container's first process: pod_init.py SPEC.json, in mount, PID, IPC, UTS and network namespaces of its own.

Lays the root out as a container runtime does: the image read-only, volumes on top, a small /dev, /proc of these
namespaces; then drops everything that the manifest says and runs the program.
"""
import ctypes
import json
import os
import pathlib
import socket
import subprocess
import sys

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def bind(source, target, read_only):
    mount("--rbind", source, target)
    if read_only:
        mount("-o", "remount,bind,ro", target)


def lay_out(spec, root):
    mount("-t", "tmpfs", "-o", "mode=755", "root", root)
    for entry in pathlib.Path(spec["root"]).iterdir():
        target = root / entry.name
        if entry.name in ("proc", "sys", "dev", "run", "tmp", "model"):
            continue
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry))
        elif entry.is_dir() and (entry.name != "opt" or not spec["programs"]):
            target.mkdir()
            bind(entry, target, read_only=True)
    for folder in ("proc", "sys", "dev", "tmp", "run", "opt/salamander/bin" if spec["programs"] else "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if spec["programs"]:
        bind(spec["programs"], root / "opt/salamander/bin", read_only=True)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", root / "sys")  # of the pod's network
    for device in ("null", "zero", "random", "urandom"):
        (root / "dev" / device).touch()
        mount("--bind", f"/dev/{device}", root / "dev" / device)
    for name, source in spec["files"].items():
        mount("--bind", source, root / name)
    for volume in spec["mounts"]:
        target = root / volume["path"].lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        if volume["source"] is None:
            mount("-t", "tmpfs", "-o", "mode=1777", "volume", target)
        else:
            bind(volume["source"], target, volume["read_only"])
    if spec["read_only_root"]:
        mount("-o", "remount,ro", root)


def drop(spec):
    libc = ctypes.CDLL(None, use_errno=True)
    for sysctl, value in spec["sysctls"].items():
        pathlib.Path("/proc/sys", sysctl.replace(".", "/")).write_text(value)
    if spec["drop_capabilities"]:
        capability = 0
        while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
    os.setgroups([])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    if spec["no_new_privileges"]:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main():
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    mount("--make-rprivate", "/")
    root = pathlib.Path(spec["scratch"])
    root.mkdir(exist_ok=True)
    lay_out(spec, root)
    socket.sethostname(spec["name"])
    os.chroot(root)
    os.chdir("/")
    drop(spec)
    os.execve(spec["args"][0], spec["args"], spec["environment"])


if __name__ == "__main__":
    main()
