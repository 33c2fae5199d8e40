"""Routers and workers as processes of this machine, on free ports of loopback, for tools and tests that watch them."""
import hashlib
import json
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass
class Process:
    name: str
    child: subprocess.Popen
    log: pathlib.Path
    addresses: dict = field(default_factory=dict)  # grpc and metrics, for a worker with both roles two of each

    @property
    def grpc(self):
        return self.addresses["grpc"][0]

    @property
    def metrics(self):
        return self.addresses["metrics"][0]

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        """SIGTERM; returns once it has ended, as it should."""
        self.child.terminate()
        code = self.child.wait(STOP_SECONDS)
        if code != 0:
            raise RuntimeError(f"{self.name} ended with exit code {code}:\n{self.log.read_text()[-2000:]}")


class Cluster:
    """Use it in a with statement; `flags` are for every process. What still runs at its end is killed."""

    def __init__(self, bin_folder, model, folder, flags=()):
        self.bin, self.model, self.folder, self.flags = pathlib.Path(bin_folder), model, pathlib.Path(folder), list(flags)
        self.processes = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.child.poll() is None:
                process.kill()

    def router(self, name="router-0", flags=()):
        return self._start("salamander-router", name, 1, [*flags])

    def worker(self, role, name, flags=()):
        """`role`: prefill, decode, or both."""
        routers = ",".join(process.grpc for process in self.processes.values() if process.name.startswith("router"))
        program = "salamander-worker" if role == "both" else f"salamander-{role}-worker"
        more = [f"--name={name}", f"--routers={routers}", "--ucx_net_devices=lo", "--threads=1", "--memory_bytes=1073741824"]
        return self._start(program, name, 2 if role == "both" else 1, [*more, *flags])

    def _start(self, program, name, servers, flags):
        command = [self.bin / program, f"--model={self.model}", *self.flags, *flags]
        if not any(flag.startswith("--listen=") for flag in command[1:]):
            command.append("--listen=127.0.0.1:0")
        log = self.folder / f"{name}.log"
        with log.open("a") as out:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, text=True)
        process = self.processes[name] = Process(name, child, log)
        watchdog = threading.Timer(START_SECONDS, child.kill)
        watchdog.start()
        process.addresses = {"grpc": [], "metrics": []}
        for _ in range(servers):
            words = dict(re.findall(r"(\w+)=(\S+)", child.stdout.readline()))
            for kind, addresses in process.addresses.items():
                if kind not in words:
                    raise RuntimeError(f"{name} ended before it served:\n{log.read_text()[-2000:]}")
                addresses.append(words[kind])
        watchdog.cancel()
        return process


class Authority:
    """A root, and one certificate for all processes of a cluster on loopback, which can be renewed."""

    def __init__(self, folder):
        self.folder = folder
        self._openssl("req", "-x509", *self._NEW_KEY, "-days", "90", "-subj", "/CN=root", "-keyout", "ca.key", "-out", "ca.crt")
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")

    _NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

    def issue(self, days):
        self._openssl("req", *self._NEW_KEY, "-subj", "/CN=localhost", "-keyout", "new.key", "-out", "new.csr")
        self._openssl("x509", "-req", "-in", "new.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", str(days), "-extfile", "names", "-out", "new.crt")
        for end in ("key", "crt"):
            (self.folder / f"new.{end}").replace(self.folder / f"tls.{end}")

    def flags(self, days):
        """Of processes that use the certificate, which is issued first."""
        self.issue(days)
        return [f"--tls_cert={self.folder}/tls.crt", f"--tls_key={self.folder}/tls.key", f"--tls_ca={self.folder}/ca.crt"]

    def _openssl(self, *command):
        subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True)


def write_keys(folder, **limits):
    """An API key of each name that is the name itself, with its limits; the router's flag."""
    (folder / "keys.json").write_text(json.dumps({"keys": [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **of} for name, of in limits.items()]}))
    return [f"--api_keys_file={folder}/keys.json"]


def scrape(address):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}/metrics", timeout=10) as page:
        return page.read().decode()


def wait_until(condition, seconds, what):
    """Asks until it is so, and returns the answer. `what` may be a function, asked at the end."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what() if callable(what) else what}: not within {seconds} s")
        time.sleep(0.1)
    return answer


def ready_workers(router):
    """How many workers the router sees ready."""
    found = re.findall(r'^salamander_router_workers\{ready="true",role="\w+"\} (\d+)', scrape(router.metrics), re.M)
    return sum(int(count) for count in found)


__all__ = ["Authority", "Cluster", "Process", "ready_workers", "scrape", "signal", "wait_until", "write_keys"]
