#!/usr/bin/env python3
"""Makes a GPU fail under requests, and looks who hears what: client, router, worker, `salamander serve`.

A backend in the place of libsalamander_cuda.so (tests/testing/faulty_device) hands one op an address that no memory has:
a real fault of a real kernel. Starts that cannot succeed are made too. One line for each case; ends with 1 if any was not
as it should be. --backend and --kind=lost try the script itself on a machine without a GPU.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
READY_SECONDS = 120
# From a fault to the client's error, and from there to the end of whoever must end.
NOTICE_SECONDS = 15
END_SECONDS = 30


class Failed(Exception):
    """A case that went wrong, with what was seen."""


def expect(text, *wanted):
    missing = [part for part in wanted if part not in text]
    if missing:
        raise Failed(f"no {missing} in: {text[-1500:]}")


class Process:
    """A program with its output in files, ended with the case."""

    def __init__(self, command, folder, environment):
        self.out, self.err = (pathlib.Path(tempfile.mkstemp(dir=folder)[1]) for _ in range(2))
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.popen = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err,
                                          env={**os.environ, **environment})

    def wait_for(self, word, seconds):
        """The rest of the first line of stdout that begins with `word`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.out.read_text().splitlines(keepends=True):
                if line.startswith(word) and line.endswith("\n"):
                    return line[len(word):].strip()
            if self.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise Failed(f"no line '{word}' within {seconds} s: {self.err.read_text()[-1500:]}")

    def end(self, seconds):
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"not at its end after {seconds} s: {self.err.read_text()[-1500:]}") from error

    def words(self):
        return self.err.read_text()


class Check:
    """The cases, over one folder of programs whose backend fails when told to."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = pathlib.Path(folder)
        self.armed = self.folder / "armed"
        self.running = []
        self.failed = 0
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for program in args.bin.glob("salamander*"):
            shutil.copy(program, self.bin)
        shutil.copy(args.bin / "libsalamander_sentencepiece.so", self.bin)
        shutil.copy(args.bin / "libsalamander_faulty_device.so", self.bin / "libsalamander_cuda.so")
        self.model = self.write_model("model", args.layers)
        vocabulary = json.loads((self.model / "config.json").read_text())["vocab_size"]
        draw = random.Random(1)
        self.prompt = self.folder / "prompt.json"
        self.prompt.write_text(json.dumps([draw.randrange(vocabulary) for _ in range(args.tokens)]))

    def write_model(self, name, layers):
        """The shape of the model given, with so many layers."""
        config = json.loads((self.args.model / "config.json").read_text())
        mixers = config["mixer_types"]
        config["mixer_types"] = [mixers[i % len(mixers)] for i in range(layers)]
        config["num_hidden_layers"] = layers
        folder = self.folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def start(self, *command, fault=None, where=None, environment=None):
        environment = {"SALAMANDER_TEST_BACKEND": str(self.args.backend), **(environment or {})}
        if fault is not None:
            environment.update(SALAMANDER_TEST_FAULT=fault, SALAMANDER_TEST_FAULT_FROM=str(self.armed),
                               SALAMANDER_TEST_FAULT_IN=where)
        process = Process([self.bin / command[0], *command[1:]], self.folder, environment)
        self.running.append(process)
        return process

    def serve(self, *flags, **how):
        return self.start("salamander", "serve", f"--model={self.model}", "--load_format=dummy", "--device=cuda",
                          "--listen=127.0.0.1:0", *flags, **how)

    def generate(self, target, *flags):
        return self.start("salamander", "generate", f"--target={target}", f"--prompt_tokens={self.prompt}",
                          "--ignore_eos", "--json", "--temperature=0", "--max_tokens=8", *flags)

    def answers(self, target):
        request = self.generate(target)
        if request.end(READY_SECONDS) != 0:
            raise Failed(f"no answer: {request.words()}")
        return json.loads(request.out.read_text())["tokens"]

    def case(self, name, run, *args):
        begin = time.monotonic()
        self.armed.unlink(missing_ok=True)
        try:
            seen, good = run(*args), True
        except Failed as failure:
            seen, good = str(failure), False
            self.failed += 1
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.popen.kill()
            process.popen.wait()
        self.running.clear()
        print(f"{'ok    ' if good else 'FAILED'} {name} ({time.monotonic() - begin:.1f} s): {seen}", flush=True)

    # --- faults under a request

    def fail_request(self, target, worker, op):
        """Makes the device fail under a request: what the client heard, and after how long."""
        self.armed.touch()
        begin = time.monotonic()
        request = self.generate(target)
        code = request.end(NOTICE_SECONDS)
        told = request.words().strip()
        if code == 0:
            raise Failed("the request was answered")
        expect(told, "error: UNAVAILABLE", worker, "cuda: ", op)
        return told, time.monotonic() - begin

    def fault(self, where, fault):
        flags = [] if where == "salamander-worker" else ["--prefill_workers=1", "--decode_workers=1"]
        op = {"logits": "matmul"}.get(fault.split(":")[0], fault.split(":")[0]) if self.args.kind == "address" else ""
        serve = self.serve(*flags, fault=fault, where=where)
        target = serve.wait_for("ready ", READY_SECONDS)
        self.answers(target)
        # Of two roles on one device either may meet the fault first.
        worker = {"salamander-worker": " worker worker-0-", "salamander-prefill-worker": "prefill worker prefill-0",
                  "salamander-decode-worker": "decode worker decode-0"}[where]
        told, seconds = self.fail_request(target, worker, op)
        code = serve.end(END_SECONDS)
        expect(serve.words(), "exited with status 1; its last words:", "INTERNAL: ", "cuda: ", op)
        if code != 1:
            raise Failed(f"serve ended with {code}")
        return f"client after {seconds:.1f} s: {told} | serve ended with 1"

    def router_drops_it(self):
        """Router and worker alone: the router forgets the one that failed, and another takes its place on the GPU."""
        router = self.start("salamander-router", f"--model={self.model}", "--load_format=dummy",
                            "--listen=127.0.0.1:0", "--metrics_listen=")
        target = router.wait_for("serving grpc=", READY_SECONDS).split()[0]

        def worker(name, **how):
            process = self.start("salamander-worker", f"--model={self.model}", "--load_format=dummy",
                                 f"--routers={target}", f"--name={name}", "--device=cuda", "--listen=127.0.0.1:0",
                                 "--ucx_net_devices=lo", **how)
            process.wait_for("serving grpc=", READY_SECONDS)
            return process

        def status():
            asked = self.start("salamander", "status", f"--target={target}", "--json")
            asked.end(NOTICE_SECONDS)
            return asked.out.read_text()

        def answers_soon():
            until = time.monotonic() + READY_SECONDS
            while True:
                try:
                    return self.answers(target)
                except Failed:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.5)

        first = worker("first", fault=f"silu_mul:3:{self.args.kind}", where="salamander-worker")
        before = answers_soon()
        expect(status(), "first-prefill", "first-decode")
        self.fail_request(target, " worker first-", "silu_mul")
        code = first.end(END_SECONDS)
        expect(first.words().splitlines()[-1], "INTERNAL: ", "cuda: ", "silu_mul")
        if code != 1 or "first-" in status():
            raise Failed(f"the worker ended with {code}; status: {status()}")
        refused = self.generate(target)
        refused.end(NOTICE_SECONDS)
        expect(refused.words(), "UNAVAILABLE")
        worker("second")
        if answers_soon() != before:
            raise Failed("the second worker answers otherwise")
        return f"worker's last words: {first.words().splitlines()[-1]} | then refused: {refused.words().strip()} | " \
               "then a second worker answered the same"

    def memory_under_request(self):
        serve = self.serve(fault="allocate:2:memory", where="salamander-worker")
        target = serve.wait_for("ready ", READY_SECONDS)
        before = self.answers(target)
        self.armed.touch()
        if self.answers(target) != before:
            raise Failed("another answer")
        serve.popen.send_signal(signal.SIGTERM)
        if (code := serve.end(END_SECONDS)) != 0:
            raise Failed(f"serve ended with {code}: {serve.words()}")
        return "the request waited for memory and was answered as before"

    # --- starts that cannot succeed

    def start_fails(self, wanted, *flags, environment=None):
        serve = self.serve(*flags, environment=environment)
        if (code := serve.end(READY_SECONDS)) == 0:
            raise Failed("serve ended with 0")
        expect(serve.words(), *wanted)
        last = serve.words().strip().splitlines()[-1].strip()
        return f"serve ended with {code}: {last}"

    def request_too_large(self):
        serve = self.serve("--max_total_tokens=2000000000", f"--memory_bytes={self.args.memory_bytes}")
        target = serve.wait_for("ready ", READY_SECONDS)
        request = self.generate(target, "--max_tokens=1000000000")
        if request.end(NOTICE_SECONDS) == 0:
            raise Failed("the request was answered")
        expect(request.words(), "error: INVALID_ARGUMENT", "bytes")
        self.answers(target)
        return f"client: {request.words().strip()} | then a small one was answered"

    def all(self):
        kind = self.args.kind
        both, prefill, decode = "salamander-worker", "salamander-prefill-worker", "salamander-decode-worker"
        for where, op in [(both, "silu_mul:3"), (both, "append_kv:1"), (both, "attend_blocks:1"), (both, "logits:1"),
                          (prefill, "lightning:2"), (decode, "pool_tiers:1"), (decode, "logits:1")]:
            self.case(f"fault {op} in {where}", self.fault, where, f"{op}:{kind}")
        self.case("the router drops it", self.router_drops_it)
        self.case("no memory for a moment", self.memory_under_request)
        self.case("request too large", self.request_too_large)
        if kind != "address":
            return
        self.case("no GPU", lambda: self.start_fails(["no GPU"], environment={"CUDA_VISIBLE_DEVICES": ""}))
        # The driver takes no code but PTX, of which a build for "90a-real" has none.
        self.case("no code for the GPU", lambda: self.start_fails(["this build has no code for "],
                                                                  environment={"CUDA_FORCE_PTX_JIT": "1"}))
        self.case("no such GPU", lambda: self.start_fails(["device must be in [0, ", "got 77"], "--device=cuda:77"))
        self.model = self.write_model("large", self.args.large_layers)
        self.case("weights too large", lambda: self.start_fails(["RESOURCE_EXHAUSTED", "memory for weights"]))
        self.case("weights too large for the card, whatever --memory_bytes says",
                  lambda: self.start_fails(["RESOURCE_EXHAUSTED", "of device memory"], f"--memory_bytes={1 << 42}"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=HERE / "bin", help="folder of the programs")
    parser.add_argument("--backend", type=pathlib.Path, help="the library that computes (default: libsalamander_cuda.so)")
    parser.add_argument("--kind", default="address", help="of faults, see faulty_ops.h: address or lost")
    parser.add_argument("--model", type=pathlib.Path, default=HERE / "model-9b", help="folder of a config.json")
    parser.add_argument("--layers", type=int, default=4, help="of that model, for requests")
    parser.add_argument("--large_layers", type=int, default=400, help="too many for the card")
    parser.add_argument("--tokens", type=int, default=12000, help="of a prompt: enough for the sparse regime")
    parser.add_argument("--memory_bytes", type=int, default=12 << 30, help="of the worker that gets too large a request")
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    args.backend = (args.backend or args.bin / "libsalamander_cuda.so").resolve()
    with tempfile.TemporaryDirectory(dir=args.bin.parent) as folder:
        check = Check(args, folder)
        check.all()
    print(f"fault_check: {check.failed} failed", flush=True)
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
