#!/usr/bin/env python3
"""Quick look at retrieval with PyTorch, before the export: exact answers by length (tools/eval is the evaluation).

    retrieval.py --state OUT/state.pt --data WORK/data [--lengths 2048,8192,32768] [--tokens 2000000]
"""
import argparse
import pathlib
import random
import time

import numpy as np
import torch

import attention
import checkpoint
import wordings
from kernels import Eager
from model import Model, make_layout
from samples import ANSWER, Sampler


TASKS = {"1 key": (wordings.keys, 1), "8 keys": (wordings.keys, 8), "64 keys": (wordings.keys, 64),
         "20 assignments": (wordings.assignments, 20), "16 pairs": (wordings.pairs, 16)}


@torch.no_grad()
def exact(model, sampler, make, count, length, trials, seed):
    """Share of questions answered exactly by greedy decoding (each answer token is the likeliest after those before)."""
    right = 0
    layout = make_layout(model.config, 1, length, "cuda")
    for trial in range(trials):
        rng = random.Random(f"{seed}/{trial}")
        tokens, kinds = sampler.one_question(rng, length + 1, make(rng, count))
        tokens = torch.from_numpy(tokens).long().cuda()
        answer = torch.from_numpy(np.flatnonzero(kinds == ANSWER)).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            hidden, _ = model.hidden(tokens[None, :-1], layout, True)
            predicted = model.logits(hidden[answer - 1]).argmax(-1)
        right += bool((predicted == tokens[answer]).all())
    return right / trials


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
    for length in map(int, options.lengths.split(",")):
        assert length % attention.CHUNK == 0
        for name, (make, count) in TASKS.items():
            start, trials = time.monotonic(), min(50, max(4, options.tokens // length))
            share = exact(model, sampler, make, count, length, trials, 7)
            print(f"{length} tokens, {name}: {share:.3f} of {trials} ({time.monotonic() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
