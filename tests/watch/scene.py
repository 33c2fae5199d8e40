"""What the live tests watch: a secured cluster of real processes that clients load, and clusters in which faults are made."""
import contextlib
import os
import pathlib
import random
import subprocess
import threading
import time

import grpc
from cluster import Authority, Cluster, ready_workers, wait_until, write_keys
from prometheus import Prometheus
from rendered import NAMESPACE, RELEASE, REPO, rule_files

from salamander_client import Client, SalamanderError

MODEL = REPO / "tools/demo/sala-12m"
VOCABULARY = 2000
KEYS = {"team-a": {}, "team-b": {"requests_per_minute": 6}}
# Small, so that a few clients fill it.
LIMITS = ["--max_running=2", "--queue_limit=5"]
DECODE_MEMORY = 256 << 20


class Scene(contextlib.ExitStack):
    def __init__(self, bin_folder, folder):
        super().__init__()
        self.bin, self.folder = bin_folder, folder
        self.began = time.time()

    def __enter__(self):
        super().__enter__()
        self.authority = Authority(self.folder)
        (self.folder / "token").write_text("the token of this test's cluster")
        flags = [*self.authority.flags(days=30), f"--cluster_token_file={self.folder}/token", "--reload_seconds=1"]
        self.prometheus = self.enter_context(Prometheus(self.folder, rule_files()))
        self.cluster = self.enter_context(Cluster(self.bin, MODEL, self.folder, flags))
        keys = write_keys(self.folder, **KEYS)
        self.start("router", 0, [*LIMITS, *keys])
        for number in (0, 1):
            self.start("prefill", number)
        self.start("decode", 0)
        wait_until(lambda: ready_workers(self.router) == 3, 60, "the cluster is ready")
        return self

    @property
    def router(self):
        return self.cluster.processes["router-0"]

    def start(self, role, number, flags=()):
        """Also again, after it has ended: at other ports, as a new pod."""
        name = f"{role}-{number}"
        if role == "router":
            process = self.cluster.router(name, flags)
        else:
            memory = [f"--memory_bytes={DECODE_MEMORY}"] if role == "decode" else []
            process = self.cluster.worker(role, name, [*memory, *flags])
        self.prometheus.watch(name, process.metrics, namespace=NAMESPACE, release=RELEASE, component=role,
                              pod=f"{RELEASE}-salamander-{name}")
        return process

    def client(self, key="team-a"):
        tls = self.folder
        return Client(self.router.grpc, tls_ca=str(tls / "ca.crt"), tls_cert=str(tls / "tls.crt"), tls_key=str(tls / "tls.key"),
                      api_key=key)

    def channel(self, address):
        """Of a stranger that has a certificate but no token."""
        read = [(self.folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(*read), options=[("grpc.enable_http_proxy", 0)])

    @contextlib.contextmanager
    def load(self, clients, tokens=(10, 2000), answer=8, pause=0.05, key="team-a"):
        """So many clients that each send requests, one after the other, whatever becomes of them."""
        stop = threading.Event()

        def ask(seed):
            rng = random.Random(seed)
            with self.client(key) as to:
                while not stop.wait(pause):
                    prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(*tokens))]
                    with contextlib.suppress(SalamanderError):
                        to.complete(tokens=prompt, max_tokens=answer, ignore_eos=True, timeout=20)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def faulty(self, fault):
        return self.enter_context(FaultyCluster(self, fault))

    def wait_for_alerts(self, *names, release=RELEASE, seconds=90):
        wanted = {(name, release) for name in names}
        wait_until(lambda: wanted <= self.prometheus.firing(), seconds,
                   lambda: f"{names} of {release} fire; firing: {self.prometheus.firing()}")

    def wait_for_quiet(self, *names, release=RELEASE, seconds=90):
        over = {(name, release) for name in names}
        wait_until(lambda: not over & self.prometheus.firing(), seconds, lambda: f"{names} of {release} are over")


class FaultyCluster:
    """A salamander-faulty-cluster (faulty_cluster.cc); its release is called as its fault."""

    def __init__(self, scene, fault):
        self.scene, self.release, self._watched = scene, fault, []

    def __enter__(self):
        environment = {**os.environ, "SALAMANDER_TEST_DATA": str(REPO / "tests/data")}
        self._child = subprocess.Popen([pathlib.Path(self.scene.bin) / "salamander-faulty-cluster", f"--fault={self.release}"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self._child.stdout:
            if line == "ready\n":
                self.scene.prometheus.wait_for_targets(len(self._watched), release=self.release)
                return self
            name, address = line.split()
            self._watched.append(f"{self.release}-{name}")
            self.scene.prometheus.watch(self._watched[-1], address.removeprefix("metrics="), namespace=NAMESPACE,
                                        release=self.release, component=name.split("-")[0], pod=name)
        raise RuntimeError("the faulty cluster ended before it was ready")

    def do(self, command):
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == "done\n"

    def __exit__(self, *_):
        for name in self._watched:
            self.scene.prometheus.watch(name, None)
        self._child.kill()
        self._child.wait()
