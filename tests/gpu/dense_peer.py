#!/usr/bin/env python3
"""Times prefill of a dense 8B model with PyTorch on one GPU: what Salamander's time to first token is compared with.

The model has Qwen3-8B's shape and random weights in bfloat16. The whole prompt runs at once: attention over all of it by
the fastest of PyTorch's own backends, everything else in chunks of tokens so that activations stay small. All layers
cost the same, so only some are run, and their time is multiplied. Usage:

  python3 dense_peer.py --tokens 131072,262144 [--layers-measured 4]
"""
import argparse
import contextlib
import dataclasses

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
CHUNK_TOKENS = 16384


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int = 36
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 12288
    vocabulary: int = 151936
    rope_theta: float = 1e6
    norm_epsilon: float = 1e-6

    @property
    def qkv_heads(self):
        return self.heads + 2 * self.kv_heads


class Layer:
    """Weights of one layer, as nn.Linear keeps them; products of the same input are one matrix."""

    def __init__(self, shape, device):
        width = shape.heads * shape.head_dim
        self.input_norm = torch.ones(shape.hidden, device=device, dtype=torch.bfloat16)
        self.qkv = random_matrix(shape.qkv_heads * shape.head_dim, shape.hidden, device)
        self.q_norm = torch.ones(shape.head_dim, device=device, dtype=torch.bfloat16)
        self.k_norm = torch.ones(shape.head_dim, device=device, dtype=torch.bfloat16)
        self.output = random_matrix(shape.hidden, width, device)
        self.mlp_norm = torch.ones(shape.hidden, device=device, dtype=torch.bfloat16)
        self.gate_up = random_matrix(2 * shape.intermediate, shape.hidden, device)
        self.down = random_matrix(shape.hidden, shape.intermediate, device)


class Model:
    def __init__(self, shape, layers, device):
        self.shape = shape
        self.device = device
        self.embedding = random_matrix(shape.vocabulary, shape.hidden, device)
        self.layers = [Layer(shape, device) for _ in range(layers)]
        self.final_norm = torch.ones(shape.hidden, device=device, dtype=torch.bfloat16)
        self.head = random_matrix(shape.vocabulary, shape.hidden, device)

    def embed(self, tokens):
        return F.embedding(tokens, self.embedding)

    def rotations(self, tokens):
        """Cosines and sines of every position, [tokens, 1, head_dim / 2]."""
        half = self.shape.head_dim // 2
        frequencies = self.shape.rope_theta ** (-torch.arange(half, device=self.device, dtype=torch.float32) / half)
        angles = torch.arange(tokens, device=self.device, dtype=torch.float32)[:, None, None] * frequencies
        return angles.cos().bfloat16(), angles.sin().bfloat16()

    def run_layer(self, layer, x, rotations, attend):
        """Adds the layer's two branches to the residual stream x, [tokens, hidden], in place."""
        shape = self.shape
        tokens = x.shape[0]
        q = x.new_empty(tokens, shape.heads, shape.head_dim)
        k = x.new_empty(tokens, shape.kv_heads, shape.head_dim)
        v = torch.empty_like(k)
        for rows in chunks(tokens):
            qkv = F.linear(self.norm(x[rows], layer.input_norm), layer.qkv).view(-1, shape.qkv_heads, shape.head_dim)
            new_q, new_k, v[rows] = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
            cos, sin = (table[rows] for table in rotations)
            rotate(self.norm(new_q, layer.q_norm), cos, sin, out=q[rows])
            rotate(self.norm(new_k, layer.k_norm), cos, sin, out=k[rows])
        attended = attend(q, k, v).reshape(tokens, -1)
        for rows in chunks(tokens):
            x[rows] += F.linear(attended[rows], layer.output)
            gate, up = F.linear(self.norm(x[rows], layer.mlp_norm), layer.gate_up).chunk(2, dim=-1)
            x[rows] += F.linear(F.silu(gate).mul_(up), layer.down)

    def last_logits(self, x):
        return F.linear(self.norm(x[-1:], self.final_norm), self.head)

    def norm(self, x, weight):
        return F.rms_norm(x, weight.shape, weight, self.shape.norm_epsilon)


def random_matrix(rows, columns, device):
    return torch.empty(rows, columns, device=device, dtype=torch.bfloat16).normal_(std=0.02)


def chunks(tokens):
    return [slice(begin, min(begin + CHUNK_TOKENS, tokens)) for begin in range(0, tokens, CHUNK_TOKENS)]


def rotate(x, cos, sin, out):
    """Rotary position embedding of x, [tokens, heads, head_dim]; element i pairs with element i + head_dim / 2."""
    first, second = x.chunk(2, dim=-1)
    half = first.shape[-1]
    torch.addcmul(first * cos, second, sin, value=-1, out=out[..., :half])
    torch.addcmul(second * cos, first, sin, out=out[..., half:])


def causal_attention(q, k, v, backend):
    """Of [tokens, heads, head_dim], causal, query heads sharing key heads; [tokens, heads, head_dim]."""
    batch = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    with sdpa_kernel(backend):
        attended = F.scaled_dot_product_attention(*batch, is_causal=True, enable_gqa=True)
    return attended.squeeze(0).transpose(0, 1)


class Stopwatch:
    """Sums GPU time of pieces of a stream's work by name, without waiting between them."""

    def __init__(self):
        self.events = {}

    @contextlib.contextmanager
    def measure(self, name):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self.events.setdefault(name, []).append((begin, end))

    def seconds(self, name):
        torch.cuda.synchronize()
        return sum(begin.elapsed_time(end) for begin, end in self.events[name]) / 1e3


def fastest_backend(shape, tokens, device):
    """The backend that is fastest in one layer of `tokens`; those that cannot run it are told why and left out."""
    q, k, v = (torch.randn(tokens, heads, shape.head_dim, device=device, dtype=torch.bfloat16)
               for heads in (shape.heads, shape.kv_heads, shape.kv_heads))
    seconds = {}
    for name, backend in BACKENDS.items():
        try:
            causal_attention(q, k, v, backend)  # The first call of a shape plans.
            watch = Stopwatch()
            with watch.measure(name):
                causal_attention(q, k, v, backend)
            seconds[name] = watch.seconds(name)
        except RuntimeError as error:
            print(f"dense peer: {name} attention cannot run {tokens} tokens: {str(error).splitlines()[0]}")
    if not seconds:
        raise SystemExit("dense peer: no attention backend runs")
    return min(seconds, key=seconds.get)


def time_prefill(model, tokens, backend):
    """Seconds of the whole model and of its attention; those of layers are scaled from the model's to the shape's."""
    prompt = torch.randint(model.shape.vocabulary, (tokens,), device=model.device)

    def prefill(layers):
        watch = Stopwatch()

        def attend(q, k, v):
            with watch.measure("attention"):
                return causal_attention(q, k, v, BACKENDS[backend])

        with watch.measure("ends"):
            x = model.embed(prompt)
        with watch.measure("layers"):
            rotations = model.rotations(tokens)
            for layer in layers:
                model.run_layer(layer, x, rotations, attend)
        with watch.measure("ends"):
            logits = model.last_logits(x)
        if not torch.isfinite(logits).all():
            raise SystemExit("dense peer: logits are not finite")
        return watch

    prefill(model.layers[:1])  # Warm-up: allocations, plans of matrix products and of attention.
    watch = prefill(model.layers)
    scale = model.shape.layers / len(model.layers)
    return watch.seconds("ends") + scale * watch.seconds("layers"), scale * watch.seconds("attention")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="131072,262144", help="prompt lengths, separated by commas")
    parser.add_argument("--layers-measured", type=int, default=4, help="layers that run; 36: all")
    arguments = parser.parse_args()
    shape = Shape()
    layers = arguments.layers_measured
    if not 1 <= layers <= shape.layers:
        parser.error(f"--layers-measured must be from 1 to {shape.layers}, got {layers}")
    device = torch.device("cuda")
    model = Model(shape, layers, device)
    print(f"dense peer: Qwen3-8B's shape, bfloat16, PyTorch {torch.__version__}, {torch.cuda.get_device_name()}; "
          f"{layers} of {shape.layers} layers measured, their time times {shape.layers / layers:g}")
    for tokens in map(int, arguments.tokens.split(",")):
        backend = fastest_backend(shape, tokens, device)
        seconds, attention = time_prefill(model, tokens, backend)
        print(f"{tokens:>9} tokens {seconds:8.3f} s  {backend} attention, {100 * attention / seconds:.1f}% of the time  "
              f"{tokens / seconds:8.0f} tokens/s", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
