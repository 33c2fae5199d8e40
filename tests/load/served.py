"""`salamander serve` under load: its processes' memory over time, its ledgers, and loads sent to it."""
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Served:
    """A cluster on free loopback ports for as long as the with statement."""

    START_SECONDS = 60
    STOP_SECONDS = 60

    def __init__(self, bin_folder: str, model: str, *flags: str):
        self.program = str(pathlib.Path(bin_folder) / "salamander")
        self._command = [self.program, "serve", f"--model={model}", "--listen=127.0.0.1:0", "--log_level=warning",
                         *flags]
        self.target = ""
        self.pids: dict[str, int] = {}
        self.memory: list[dict] = []  # {"at": seconds, process: bytes}, once a second
        self._stop = threading.Event()

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(self.START_SECONDS, self._process.kill)
        watchdog.start()
        for line in self._process.stdout:
            if found := re.match(r"(\S+) grpc=.* pid=(\d+)", line):
                self.pids[found[1]] = int(found[2])
            if line.startswith("ready "):
                self.target = line.split()[1]
                break
        watchdog.cancel()
        if not self.target:
            raise SystemExit(f"load: {' '.join(self._command)} did not become ready")
        self._begin = time.monotonic()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._sampler.join()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(self.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def resident(self) -> dict[str, int]:
        return {name: int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
                for name, pid in self.pids.items()}

    def _sample(self):
        while not self._stop.wait(1):
            self.memory.append({"at": self.seconds()} | self.resident())

    def status(self) -> dict:
        done = subprocess.run([self.program, "status", f"--target={self.target}", "--json"], stdout=subprocess.PIPE,
                              check=True, text=True)
        return json.loads(done.stdout)

    def ledgers(self) -> dict[str, dict[str, int]]:
        return {worker["name"]: worker["memory"] for worker in self.status()["workers"]}

    def idle_ledgers(self) -> dict[str, dict[str, int]]:
        """Ledgers when nothing moves: the same for three seconds, over all workers' heartbeats."""
        last, since = None, time.monotonic()
        for _ in range(60):
            now = self.ledgers()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= 3:
                return now
            time.sleep(0.5)
        raise AssertionError("the workers' ledgers do not come to rest")

    def idle_resident(self) -> dict[str, int]:
        """The median of three looks, with nothing running and the heaps trimmed, which takes five seconds."""
        looks = []
        time.sleep(6)
        for _ in range(3):
            looks.append(self.resident())
            time.sleep(1)
        return {name: statistics.median(look[name] for look in looks) for name in looks[0]}

    def load(self, **flags) -> dict:
        """The report of one `salamander bench serve`, with its samples; `begin` is when it began."""
        begin = self.seconds()
        with tempfile.TemporaryDirectory(prefix="salamander-load-") as folder:
            path = pathlib.Path(folder) / "report.json"
            command = [self.program, "bench", "serve", f"--target={self.target}", f"--output={path}",
                       *(f"--{name}={value}" for name, value in flags.items())]
            print("$", " ".join(command[1:]), flush=True)
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
            print(done.stdout, flush=True)
            assert done.returncode == 0, f"bench serve ended with exit code {done.returncode}"
            return json.loads(path.read_text()) | {"begin": begin}
