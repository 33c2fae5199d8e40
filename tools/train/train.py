#!/usr/bin/env python3
"""Trains a small MiniCPM-SALA on WORK/data (see data.py) as a configuration file says.

    train.py --config small.json --data WORK/data --out OUT [--stop_after SECONDS] [--init CHECKPOINT]

OUT gets state.pt (everything that resuming needs) and losses.csv. Run again, it goes on where it stopped, with the same
numbers as without the stop. --stop_after ends a run early, for machines that are lent for minutes. --init begins with the
weights of a checkpoint folder instead of random ones. Started by torchrun, each process has a GPU and a share of every step's
sequences; gradients are averaged.
"""
import argparse
import contextlib
import csv
import functools
import json
import os
import pathlib
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import checkpoint
import recorded
from model import Model, Plain, make_layout
from optimiser import Optimiser
from samples import ANSWER, FACT, TEXT, Sampler

LOG_STEPS, STOP_STEPS = 50, 10
PROCESS, PROCESSES = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # torchrun's
COLUMNS = ["step", "seconds", "length", "sparse", "rate", "text_loss", "answer_loss", "answer_tokens_right", "selection_loss"]


class Steps(torch.utils.data.Dataset):
    """This process's share of all steps' batches; a step's batch depends on the seed and its number alone."""

    def __init__(self, config, data: pathlib.Path, process: int, processes: int):
        self._config, self._data, self._process, self._processes = config, data, process, processes
        self._phases = [phase for phase in config["phases"] for _ in range(phase["steps"])]
        self._sampler = None

    def __len__(self):
        return len(self._phases)

    def phase(self, step):
        return self._phases[step]

    def __getitem__(self, step):
        if self._sampler is None:
            torch.set_num_threads(1)
            self._sampler = Sampler(np.memmap(self._data / "train.u16", np.uint16, "r"), str(self._data / "tokenizer.model"))
        phase, seed = self._phases[step], self._config["seed"]
        tokens = phase.get("tokens_per_step", self._config["tokens_per_step"])
        count, left = divmod(tokens, phase["length"] * self._processes)
        if left or not count:
            raise ValueError(f"{tokens} tokens a step are no whole number of sequences of {phase['length']} for each of "
                             f"{self._processes} processes")
        mine = range(self._process * count, (self._process + 1) * count)
        tokens, kinds = self._sampler.batch(seed, step, mine, phase["length"], phase)
        rows = np.stack([self._rows(np.random.default_rng([seed, step, i]), kinds[i - mine[0]]) for i in mine])
        return torch.from_numpy(tokens), torch.from_numpy(kinds), torch.from_numpy(rows)

    def _rows(self, rng, kinds):
        """Positions whose choice of blocks is trained: half of them before answers, the rest at facts and anywhere."""
        count = self._config["selection_rows"]
        anywhere = np.arange(len(kinds) - 1)
        answers = np.flatnonzero(kinds[1:] == ANSWER)
        facts = np.flatnonzero(kinds[:-1] == FACT)
        parts = [(answers, count // 2), (facts, count // 4), (anywhere, count - count // 2 - count // 4)]
        return np.concatenate([rng.choice(places if len(places) else anywhere, n) for places, n in parts])


def losses(model, hidden, targets, kinds):
    """[text sum, text count, answer sum, answer count, answer tokens right], sums of cross-entropy."""
    logits = model.logits(hidden).float()
    loss = F.cross_entropy(logits, targets, reduction="none")
    text, answer = kinds == TEXT, kinds == ANSWER
    right = (logits.argmax(-1) == targets) & answer
    return torch.stack([(loss * text).sum(), text.sum(), (loss * answer).sum(), answer.sum(), right.sum()])


class Trainer:
    def __init__(self, config, out: pathlib.Path, init: pathlib.Path | None, device, parts, record):
        self.config, self.out, self.device, self.record = config, out, device, record
        self.model = Model(checkpoint.full_config(config["model"]), parts)
        self.model.initialise(torch.Generator().manual_seed(config["seed"]))
        if init is not None:
            self.model.load_state_dict(checkpoint.read_weights(init))
        self.model.to(device)
        self.optimiser = Optimiser(self.model, config["optimiser"])
        self._processes = dist.get_world_size() if dist.is_initialized() else 1
        self.step, self.seconds, self.log = 0, 0.0, []
        self._told = torch.zeros(6, device=device)  # sums since the last line of the log
        self._recorded = None  # of the phase
        self._losses = torch.compile(losses, dynamic=False) if device == "cuda" else losses
        if (out / "state.pt").exists():
            self._load(torch.load(out / "state.pt", map_location=device, weights_only=False))

    def _load(self, state):
        if state["config"] != self.config:
            raise SystemExit(f"train: {self.out}/state.pt was made with another configuration")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
        self._told.copy_(state["told"])

    def save(self):
        torch.save({"config": self.config, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                    "step": self.step, "seconds": self.seconds, "log": self.log, "told": self._told}, self.out / "state.pt")
        with open(self.out / "losses.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *self.log])

    def rate(self, total):
        """Of the peak: a warm-up, the share `hold` of the steps at the peak, then straight down to nothing; at
        `schedule_steps`, where the configuration has fewer."""
        total = self.config.get("schedule_steps", total)
        falling = total * (1 - self.config.get("hold", 0))
        return min(1.0, (self.step + 1) / self.config["warmup_steps"], max(0.01, (total - self.step) / falling))

    def _autocast(self):
        return torch.autocast("cuda", torch.bfloat16) if self.device == "cuda" else contextlib.nullcontext()

    def _step(self, phase, layout, tokens, kinds, rows):
        """Forward, backward and the optimiser, all on the device."""
        config = self.config
        with self._autocast():
            hidden, selection = self.model.hidden(tokens[:, :-1], layout, phase["sparse"],
                                                  rows if phase["length"] >= config["selection_from"] else None)
            told = self._losses(self.model, hidden, tokens[:, 1:].flatten(), kinds[:, 1:].flatten())
        text, answer = told[0] / told[1].clamp(min=1), told[2] / told[3].clamp(min=1)
        (text + config["answer_weight"] * answer + config["selection_weight"] * selection).backward()
        if self._processes > 1:
            self._average_gradients()
        self.optimiser.step()
        self._told += torch.cat([told.detach(), selection.detach().float()[None]])

    def _average_gradients(self):
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self._processes
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in gradients]), gradients)])

    def _over(self, deadline):
        """Whether to stop now; processes agree about it."""
        if self._processes == 1:
            return time.monotonic() >= deadline
        if self.step % STOP_STEPS:
            return False
        late = torch.tensor(float(time.monotonic() >= deadline), device=self.device)
        dist.all_reduce(late, op=dist.ReduceOp.MAX)
        return bool(late.item())

    def train_step(self, phase, batch, total):
        self.optimiser.set_factor(self.rate(total))
        if self._recorded is None or self._recorded.phase is not phase:
            self._recorded = None  # frees the memory of the phase before
            layout = make_layout(self.model.config, len(batch[0]), phase["length"], self.device)
            self._recorded = recorded.Step(phase, functools.partial(self._step, phase, layout), batch, self.device,
                                           self.record)
        self._recorded.run(batch)
        self.step += 1

    def run(self, steps: Steps, workers, deadline):
        started, total = time.monotonic() - self.seconds, len(steps)
        sampler = range(self.step, total)
        loader = iter(torch.utils.data.DataLoader(
            steps, batch_size=None, sampler=sampler, num_workers=workers, pin_memory=self.device == "cuda",
            prefetch_factor=8 if workers else None))
        while self.step < total and not self._over(deadline):
            phase, rate = steps.phase(self.step), self.rate(total)
            self.train_step(phase, next(loader), total)
            if self.step % LOG_STEPS == 0 or self.step == total:
                self.seconds = time.monotonic() - started
                if self._processes > 1:
                    dist.all_reduce(self._told)
                    self._told[5] /= self._processes
                text, texts, answer, answers, right, selection = self._told.tolist()
                done = (self.step - 1) % LOG_STEPS + 1
                row = [self.step, round(self.seconds, 1), phase["length"], int(phase["sparse"]), round(rate, 5),
                       round(text / max(texts, 1), 4), round(answer / max(answers, 1), 4), round(right / max(answers, 1), 4),
                       round(selection / done, 4)]
                self.log.append(row)
                self._told.zero_()
                if PROCESS == 0 and (self.step % (LOG_STEPS * 4) == 0 or self.step == total):
                    print(" ".join(f"{name} {value}" for name, value in zip(COLUMNS, row)), flush=True)
        self.seconds = time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--init", type=pathlib.Path)
    parser.add_argument("--stop_after", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--launch_each", action="store_true", help="launch every kernel from Python, no CUDA graphs")
    parser.add_argument("--workers", type=int, default=12, help="processes that make sequences")
    options = parser.parse_args()
    deadline = time.monotonic() + options.stop_after
    if PROCESSES > 1:
        if options.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    config = json.loads(options.config.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    parts = Plain
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        from kernels import Compiled as parts
    trainer = Trainer(config, options.out, options.init, options.device, parts,
                      options.device == "cuda" and not options.launch_each and PROCESSES == 1)
    print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f} M parameters, from step {trainer.step}", flush=True)
    with recorded.side_stream(options.device):
        trainer.run(Steps(config, options.data, PROCESS, PROCESSES), options.workers, deadline)
    if PROCESS == 0:
        trainer.save()
    memory = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else 0
    if PROCESSES > 1:
        dist.destroy_process_group()
    print(f"step {trainer.step} after {trainer.seconds:.0f} s, {memory:.1f} GiB of device memory", flush=True)


if __name__ == "__main__":
    main()
