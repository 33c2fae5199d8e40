#!/usr/bin/env python3
"""Hides a key in a long document and asks a cluster on this machine for it.

    demo.py --bin build/bin                            one document of 100,000 tokens; also compares with one process
    demo.py --bin build/bin --trials 100 --prefill_workers 1..4    many shorter ones through several clusters

Ends with exit code 1 if an answer is wrong, or if the cluster's tokens differ from those of one process.
"""
import argparse
import pathlib
import random
import time

from haystack import Haystack, random_needle
from salamander_command import Cluster, Salamander

MODEL = pathlib.Path(__file__).parent / "sala-12m"
TIMES = [("router_queue_s", "router queue"), ("prefill_queue_s", "prefill queue"), ("prefill_s", "prefill"),
         ("transfer_exposed_s", "exposed transfer"), ("decode_queue_s", "decode queue"), ("first_step_s", "first step")]


def worker_counts(text: str):
    """"2", "1,2" or "1..4"."""
    if ".." in text:
        low, high = text.split("..")
        counts = list(range(int(low), int(high) + 1))
    else:
        counts = [int(part) for part in text.split(",")]
    if not counts or min(counts) < 1:
        raise ValueError
    return counts


class Questions:
    """Prompts of a wanted number of tokens, each with its answer. Seed and number decide them."""

    def __init__(self, seed: int, salamander: Salamander, target: str):
        self._seed = seed
        self._haystack = Haystack()
        self._count = lambda prompt: salamander.count_tokens(target, prompt)

    def make(self, number: int, min_tokens: int, max_tokens: int):
        """Prompt, needle and depth of question `number`."""
        rng = random.Random(f"{self._seed}/{number}")
        needle = random_needle(rng)
        wanted = min_tokens * (max_tokens / min_tokens) ** rng.random()  # as many between 4K and 8K as between 32K and 64K
        size, tokens = wanted * 2.5, 0  # bytes; how many make a token depends on the text
        while not min_tokens <= tokens <= max_tokens:
            text, depth = self._haystack.document(rng, int(size), needle)
            prompt = f"{text}\n{needle.question}"
            tokens = self._count(prompt)
            size *= wanted / tokens
        return prompt, needle, depth


def check(answer, needle, depth):
    """Prints one answer; whether it is right."""
    right = answer["text"].strip() == needle.key
    print(f"{needle.question} (hidden at {depth:.0%} of {answer['usage']['prompt_tokens']:,} tokens)  ->  {answer['text'].strip()!r}, "
          + ("right" if right else f"WRONG: the key is {needle.key}"), flush=True)
    return right


def show_times(answer):
    timing = answer["timing"]
    workers = {span["worker"] for span in answer["plan"]["spans"]}
    print(f"{len(answer['plan']['spans'])} spans on {len(workers)} prefill workers; time to first token "
          f"{timing['ttft_s']:.2f} s:")
    for key, name in TIMES:
        print(f"  {name:<17}{timing[key]:8.3f} s")


def demo(options, salamander: Salamander) -> bool:
    workers = options.prefill_workers[0]
    print(f"starting a router, {workers} prefill workers and a decode worker", flush=True)
    with Cluster(salamander, workers) as cluster:
        prompt, needle, depth = Questions(options.seed, salamander, cluster.target).make(
            0, options.min_tokens, int(options.min_tokens * 1.1))
        print(f"hid: {needle.sentence}", flush=True)
        answer = salamander.generate(cluster.target, prompt)
    right = check(answer, needle, depth)
    show_times(answer)
    print("the same in one process (salamander run)", flush=True)
    alone = salamander.run(prompt)
    same = alone["tokens"] == answer["tokens"]
    print(f"  time to first token {alone['timing']['ttft_s']:.2f} s; tokens "
          + ("are the same" if same else f"DIFFER: {alone['tokens']}, from the cluster {answer['tokens']}"))
    return right and same


def trials(options, salamander: Salamander) -> bool:
    right = 0
    counts = options.prefill_workers
    for index, workers in enumerate(counts):
        with Cluster(salamander, workers) as cluster:
            print(f"-- {workers} prefill workers", flush=True)
            questions = Questions(options.seed, salamander, cluster.target)
            for number in range(index, options.trials, len(counts)):
                prompt, needle, depth = questions.make(number, options.min_tokens, options.max_tokens)
                answer = salamander.generate(cluster.target, prompt)
                right += check(answer, needle, depth)
    print(f"{right} of {options.trials} right")
    return right == options.trials


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/bin", help="folder of the built programs")
    parser.add_argument("--model", default=str(MODEL), help="checkpoint that knows the task (default: sala-12m)")
    parser.add_argument("--seed", type=int, default=None, help="decides document, key and depth (default: by the time)")
    parser.add_argument("--prefill_workers", type=worker_counts, default="2", help="2, or 1,2 or 1..4 with --trials")
    parser.add_argument("--trials", type=int, default=0, help="ask this many questions, spread over the worker counts")
    parser.add_argument("--min_tokens", type=int, default=None, help="default 100000; 4000 with --trials")
    parser.add_argument("--max_tokens", type=int, default=64000, help="of a document, with --trials (default 64000)")
    options = parser.parse_args()
    if options.min_tokens is None:
        options.min_tokens = 4000 if options.trials else 100_000
    if options.min_tokens < 1000 or options.trials and options.max_tokens < options.min_tokens * 1.1:
        parser.error("--min_tokens must be at least 1000, and --max_tokens 10% more")
    if options.seed is None:
        options.seed = time.time_ns() % 1_000_000
    start = time.monotonic()
    print(f"seed {options.seed}")
    with Salamander(options.bin, options.model) as salamander:
        good = trials(options, salamander) if options.trials else demo(options, salamander)
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
