"""Muon for the matrices of the layers, AdamW for the rest.

Muon (K. Jordan and others, 2024): momentum, then the nearest orthogonal matrix by a quintic Newton-Schulz iteration; scaled
by 0.2 sqrt(max(rows, columns)) as in "Muon is Scalable for LLM Training" (arXiv 2502.16982), so that an element moves as far
as with AdamW. Matrices of one shape are orthogonalised together.
"""
from collections import defaultdict

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack, steps=5):
    """Newton-Schulz of matrices [count, rows, columns] in BF16."""
    a, b, c = COEFFICIENTS
    x = stack.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Optimiser:
    """Reads its rates from a tensor and never waits for the device, so that a step can be recorded as a CUDA graph."""

    def __init__(self, model, settings):
        self._settings = settings
        hidden, rest = [], []
        for name, parameter in model.named_parameters():
            (hidden if parameter.dim() == 2 and ".layers." in name else rest).append(parameter)
        self._groups = defaultdict(list)
        for parameter in hidden:
            self._groups[tuple(parameter.shape)].append(parameter)
        device = rest[0].device
        self._momentum = {shape: torch.zeros(len(group), *shape, device=device) for shape, group in self._groups.items()}
        self._factor = torch.ones((), device=device)  # of the peak rates
        self._adam_rate = torch.ones((), device=device)
        self._adam = torch.optim.AdamW(rest, lr=self._adam_rate, betas=(0.9, 0.95), weight_decay=0.0,
                                       fused=rest[0].is_cuda, capturable=rest[0].is_cuda)
        self._parameters = hidden + rest

    def set_factor(self, factor):
        self._factor.fill_(factor)
        self._adam_rate.fill_(factor * self._settings["adam_rate"])

    @torch.no_grad()
    def step(self):
        """One step at the rates set before. Gradients are dropped."""
        s = self._settings
        torch.nn.utils.clip_grad_norm_(self._parameters, s["clip"], foreach=True)
        self._adam.step()
        rate = self._factor * s["muon_rate"]
        for shape, group in self._groups.items():
            gradient, momentum = torch.stack([p.grad for p in group]), self._momentum[shape]
            momentum.lerp_(gradient, 1 - s["momentum"])
            update = orthogonalise(gradient.lerp_(momentum, s["momentum"])).float() * (rate * (-0.2 * max(shape) ** 0.5))
            torch._foreach_mul_(group, 1 - rate * s["weight_decay"])
            torch._foreach_add_(group, list(update.unbind()))
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self):
        return {"adam": self._adam.state_dict(), "momentum": self._momentum}

    def load_state_dict(self, state):
        self._adam.load_state_dict(state["adam"])
        for group in self._adam.param_groups:  # loading made a tensor of its own
            group["lr"] = self._adam_rate
        for shape, momentum in state["momentum"].items():
            self._momentum[shape].copy_(momentum)
