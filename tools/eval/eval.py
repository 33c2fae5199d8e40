#!/usr/bin/env python3
"""Measures a trained model's quality through a running cluster.

    eval.py --target HOST:PORT --suite SUITE[,SUITE] --model FOLDER --held_out WORK/data/held_out.u16 --out results.jsonl

Suites, each with its lengths and numbers of trials (--lengths and --trials change them):
    single        one key, depths spread evenly
    four          four keys of near-identical names
    distractors   one key, and six other numbers of the same name
    keys8, keys64 as four, with 8 and 64
    last20        the last of 20 assignments of one variable
    perplexity    held-out tokens after contexts of each length, the same tokens at every length
    logprobs      64 greedy tokens after held-out text with their log-probabilities; give --label what the cluster is

Appends one JSON object a trial; trials already in --out are not run again. report.py makes the tables. Needs the Python client,
numpy and sentencepiece. Answers count if they are exact, decoded greedily.
"""
import argparse
import json
import pathlib
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import sentencepiece  # noqa: F401  (a clear error before any work)
from prompts import Prompts

from salamander_client import Client, Unavailable

K = 1024
RETRIEVAL = {  # name -> lengths, trials, how a trial is made of (prompts, rng, length, depth)
    "single": ([4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K], 200, lambda p, *a: p.keys(*a)),
    "four": ([4 * K, 32 * K, 128 * K], 50, lambda p, *a: p.keys(*a, count=4)),
    "distractors": ([4 * K, 32 * K, 128 * K], 50, lambda p, *a: p.keys(*a, distractors=6)),
    "keys8": ([8 * K, 32 * K, 128 * K], 100, lambda p, *a: p.keys(*a, count=8)),
    "keys64": ([8 * K, 32 * K, 128 * K], 100, lambda p, *a: p.keys(*a, count=64)),
    "last20": ([8 * K, 32 * K], 100, lambda p, rng, length, _: p.last_assignment(rng, length, 20)),
}
PERPLEXITY = ([1 * K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K], 200)
LOGPROBS = ([4 * K, 16 * K], 4)
NEW_TOKENS = 64
RETRIES = 10


def complete(client, **options):
    """An answer; a request that lost a worker is sent again, as its error says it may be."""
    for attempt in range(RETRIES):
        try:
            return client.complete(temperature=0.0, timeout=3600, **options)
        except Unavailable as error:
            print(f"eval: attempt {attempt + 1} of {RETRIES}: {error}", file=sys.stderr, flush=True)
            time.sleep(5)
    raise SystemExit(f"eval: no answer after {RETRIES} attempts")


def retrieve(client, prompts, suite, length, number, trials, seed):
    rng = random.Random(f"{seed}/{suite}/{length}/{number}")
    trial = RETRIEVAL[suite][2](prompts, rng, length, (number + rng.random()) / trials)
    answer = complete(client, tokens=trial.tokens, max_tokens=16)
    return {"right": answer.text.strip() == trial.answer, "depth": round(trial.depth, 4), "answer": answer.text.strip(),
            "expected": trial.answer, "ttft": round(answer.finished.timing.ttft, 3)}


def score_token(client, prompts, _, length, number, __, seed):
    """Log-probability of one held-out token after `length` tokens. The bias makes it the one that is generated; its
    log-probability is told as the model gave it, before biases."""
    longest = PERPLEXITY[0][-1]
    window = prompts.window(random.Random(f"{seed}/perplexity/{number}"), longest + 1)
    answer = complete(client, tokens=[1] + window[-length:-1], max_tokens=1, ignore_eos=True, logprobs=0,
                      logit_bias={window[-1]: 100.0})
    (scored,) = answer.logprobs
    if scored.token != window[-1]:
        raise SystemExit(f"eval: the cluster generated token {scored.token} where {window[-1]} was biased to win")
    return {"logprob": scored.logprob}


def greedy(client, prompts, _, length, number, __, seed):
    window = prompts.window(random.Random(f"{seed}/logprobs/{length}/{number}"), length - 1)
    answer = complete(client, tokens=[1] + window, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=20)
    return {"tokens": list(answer.tokens), "top": [[[t.token, t.logprob] for t in one.top] for one in answer.logprobs]}


def plan(options):
    """(suite, lengths, trials, function) of each suite."""
    for suite in options.suite.split(","):
        if suite in RETRIEVAL:
            lengths, trials, function = *RETRIEVAL[suite][:2], retrieve
        elif suite == "perplexity":
            lengths, trials, function = *PERPLEXITY, score_token
        elif suite == "logprobs":
            lengths, trials, function = *LOGPROBS, greedy
        else:
            raise SystemExit(f"eval: unknown suite {suite!r}; see --help")
        yield suite, options.lengths or lengths, options.trials or trials, function


def run(options):
    out = pathlib.Path(options.out)
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(r["suite"], r["label"], r["length"], r["trials"], r["trial"]) for r in map(json.loads, lines)}
    prompts = Prompts(options.held_out, str(pathlib.Path(options.model) / "tokenizer.model"))
    with Client(options.target) as client, open(out, "a") as file, ThreadPoolExecutor(options.concurrency) as pool:
        for suite, lengths, trials, function in plan(options):
            for length in lengths:
                start, right, asked = time.monotonic(), 0, 0

                def ask(number):
                    key = {"suite": suite, "label": options.label, "length": length, "trials": trials, "trial": number}
                    if tuple(key.values()) in done:
                        return None
                    return key | function(client, prompts, suite, length, number, trials, options.seed)

                for result in pool.map(ask, range(trials)):
                    if result is None:
                        continue
                    file.write(json.dumps(result) + "\n")
                    file.flush()
                    right, asked = right + result.get("right", 0), asked + 1
                score = f", {right} right" if suite in RETRIEVAL else ""
                print(f"{suite} {options.label} {length}: {asked} trials{score}, {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="HOST:PORT of the router")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--model", required=True, help="checkpoint folder, for its tokenizer.model")
    parser.add_argument("--held_out", required=True, help="held_out.u16 of tools/train/data.py")
    parser.add_argument("--out", required=True, help="JSON lines, appended to")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], help="tokens, instead of the suite's")
    parser.add_argument("--trials", type=int, help="of each length, instead of the suite's")
    parser.add_argument("--label", default="", help="of the cluster, such as its codec and number of workers")
    parser.add_argument("--concurrency", type=int, default=1, help="requests at once")
    parser.add_argument("--seed", type=int, default=1)
    run(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
