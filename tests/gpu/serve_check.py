#!/usr/bin/env python3
"""Serves a model from the bundle over gRPC, sends it prompts of made-up tokens, and compares with `salamander run`.

One line per prompt length: whether the tokens are the same, the parts of the time to first token, the decode rate, and
the most device memory that the whole GPU held meanwhile.
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent


class PeakMemory:
    """The most MiB in use on the fullest of the GPUs ("0,1"), asked for every 0.2 s."""

    def __init__(self, gpus):
        self.peak = 0
        self.query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", gpus]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.stopped.wait(0.2):
            used = subprocess.run(self.query, capture_output=True, text=True, check=False).stdout.split()
            self.peak = max([self.peak, *(int(mib) for mib in used if mib.isdigit())])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()


def start_server(args, log):
    command = ["./run", "serve", f"--model={args.model}", f"--load_format={args.load_format}",
               f"--device={args.device}", "--listen=127.0.0.1:7077", "--verbose"] + args.serve
    server = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=log, text=True)
    for line in server.stdout:
        if line.startswith("ready "):
            return server
    raise SystemExit(f"serve_check: the server ended with {server.wait()}; its log: {log.name}")


def ask(command, args, prompt):
    result = subprocess.run(["./run", *command, f"--prompt_tokens={prompt}", f"--max_tokens={args.max_tokens}",
                             "--temperature=0", "--ignore_eos", "--json"],
                            cwd=HERE, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode != 0:
        raise SystemExit(f"serve_check: {' '.join(command)}: {result.stderr[-2000:]}")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="model-9b")
    parser.add_argument("--load_format", default="dummy")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", default="8192,131072", help="prompt lengths")
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--no_run", action="store_true", help="do not compare with `salamander run`")
    parser.add_argument("serve", nargs="*", help="more flags of `salamander serve`, after --")
    args = parser.parse_args()
    vocabulary = json.loads((HERE / args.model / "config.json").read_text())["vocab_size"]
    devices = args.device.split(",")
    gpus = ",".join(device.partition(":")[2] or "0" for device in devices)
    lengths = [int(length) for length in args.tokens.split(",")]
    same = True
    with tempfile.TemporaryDirectory() as folder, open(HERE / "serve.log", "w", encoding="utf-8") as log:
        prompts = {}
        for length in lengths:
            draw = random.Random(length)
            prompts[length] = os.path.join(folder, f"{length}.json")
            pathlib.Path(prompts[length]).write_text(json.dumps([draw.randrange(vocabulary) for _ in range(length)]))
        answers = {}
        begin = time.monotonic()
        server = start_server(args, log)
        print(f"serve: ready after {time.monotonic() - begin:.1f} s", flush=True)
        try:
            for length in lengths:
                with PeakMemory(gpus) as memory:
                    answers[length] = ask(["generate", "--target=127.0.0.1:7077"], args, prompts[length])
                timing = {key: round(value, 4) for key, value in answers[length]["timing"].items()}
                print(f"serve {length}: spans {len(answers[length]['plan']['spans'])}, peak {memory.peak} MiB, {timing}",
                      flush=True)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=60)
        print(f"serve: ended with {code}", flush=True)
        for length in [] if args.no_run else lengths:
            with PeakMemory(gpus) as memory:
                alone = ask(["run", f"--model={args.model}", f"--load_format={args.load_format}",
                             f"--device={devices[0]}"], args, prompts[length])
            equal = alone["tokens"] == answers[length]["tokens"]
            same = same and equal
            print(f"run   {length}: tokens {'the same' if equal else 'DIFFER'}, peak {memory.peak} MiB, "
                  f"ttft {alone['timing']['ttft_s']:.4f} s, {alone['timing']['tokens_per_s']:.1f} tokens/s", flush=True)
    sys.exit(0 if same and code == 0 else 1)


if __name__ == "__main__":
    main()
