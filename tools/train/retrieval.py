#!/usr/bin/env python3
"""Quick look at retrieval and at text by length with PyTorch, before the export (tools/eval is the evaluation).

    retrieval.py --state OUT/state.pt --data WORK/data [--lengths 2048,8192,32768] [--tokens 2000000]
"""
import argparse
import functools
import pathlib
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import attention
import checkpoint
import wordings
from kernels import Eager
from model import Model, make_layout
from samples import ANSWER, BEGIN, Sampler

SCORED, LONGEST = 512, 131072  # tokens of text at the end of a context, and of the longest context
TASKS = {"1 key": (wordings.keys, 1), "8 keys": (wordings.keys, 8), "64 keys": (wordings.keys, 64),
         "last of 20": (functools.partial(wordings.assignments, variables=1), 20), "16 pairs": (wordings.pairs, 16)}


@torch.no_grad()
def exact(model, sampler, make, count, length, trials, seed):
    """Share of questions answered exactly by greedy decoding (each answer token is the likeliest after those before)."""
    right = 0
    layout = make_layout(model.config, 1, length, "cuda")
    for trial in range(trials):
        rng = random.Random(f"{seed}/{trial}")
        sequence = sampler.one_question(rng, length + 1, make(rng, count))
        if sequence is None:
            return None  # no room
        tokens, kinds = sequence
        tokens = torch.from_numpy(tokens).long().cuda()
        answer = torch.from_numpy(np.flatnonzero(kinds == ANSWER)).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            hidden, _ = model.hidden(tokens[None, :-1], layout, True)
            predicted = model.logits(hidden[answer - 1]).argmax(-1)
        right += bool((predicted == tokens[answer]).all())
    return right / trials


@torch.no_grad()
def text_loss(model, text, length, ends):
    """Nats a token over the same SCORED tokens before each end, after contexts that begin `length` tokens before the end."""
    layout, total = make_layout(model.config, 1, length, "cuda"), 0.0
    for end in ends:
        tokens = torch.from_numpy(np.concatenate([[BEGIN], text[end - length:end].astype(np.int64)])).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            hidden, _ = model.hidden(tokens[None, :-1], layout, True)
            total += F.cross_entropy(model.logits(hidden[-SCORED:]).float(), tokens[-SCORED:]).item()
    return total / len(ends)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--lengths", default="2048,8192,32768")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of each task at each length")
    options = parser.parse_args()
    state = torch.load(options.state, map_location="cuda", weights_only=False)
    model = Model(checkpoint.full_config(state["config"]["model"]), Eager).cuda()
    model.load_state_dict({name: tensor.to(torch.bfloat16).float() for name, tensor in state["model"].items()})
    sampler = Sampler(np.fromfile(options.data / "held_out.u16", np.uint16), str(options.data / "tokenizer.model"))
    lengths = list(map(int, options.lengths.split(",")))
    text = np.fromfile(options.data / "held_out.u16", np.uint16)
    ends = np.linspace(LONGEST, len(text), 24).astype(int)
    for length in lengths:
        print(f"{length} tokens, text: {text_loss(model, text, length, ends):.4f} nats a token", flush=True)
    for length in lengths:
        assert length % attention.CHUNK == 0 and length <= LONGEST
        for name, (make, count) in TASKS.items():
            start, trials = time.monotonic(), min(50, max(4, options.tokens // length))
            share = exact(model, sampler, make, count, length, trials, 7)
            if share is None:
                continue
            print(f"{length} tokens, {name}: {share:.3f} of {trials} ({time.monotonic() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
