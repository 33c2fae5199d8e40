"""MiniCPM-SALA in PyTorch, for training: the forward pass that tests/oracle defines, over a batch of whole sequences.

The batch's tokens are rows [batch * length, width], so that all that is compiled has one shape in every phase of training.
In float64 on the CPU it is the oracle's arithmetic; on a GPU it runs under autocast to BF16 with float32 norms and softmax,
and sparse layers attend through kernels.py. Module names are the published tensor names.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

import attention


def rms_norm(x, weight, eps):
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rotate(x, cos, sin):
    """RoPE of x [tokens, heads, d] by angles whose cos and sin are [tokens, d / 2]."""
    a, b = x.to(cos.dtype).chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


@dataclass
class Layout:
    """What depends on how the tokens lie in sequences: of `batch` sequences of `length` tokens each."""

    batch: int
    length: int
    cos: torch.Tensor
    sin: torch.Tensor
    decay: attention.Decays


def make_layout(config, batch, length, device, dtype=torch.float32) -> Layout:
    size = config["lightning_head_dim"]
    inverse = config["rope_theta"] ** (-torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
    angles = (torch.arange(length, device=device, dtype=torch.float64)[:, None] * inverse).repeat(batch, 1)
    decay = attention.decays(config["lightning_nh"], batch, length // attention.CHUNK, device, dtype)
    return Layout(batch, length, angles.cos().to(dtype), angles.sin().to(dtype), decay)


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj, self.up_proj = linear(hidden, inner), linear(hidden, inner)
        self.down_proj = linear(inner, hidden)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Lightning(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.heads, self.groups, self.size = config["lightning_nh"], config["lightning_nkv"], config["lightning_head_dim"]
        width = self.heads * self.size
        self.q_proj, self.z_proj, self.o_proj = linear(hidden, width), linear(hidden, width), linear(width, hidden)
        self.k_proj, self.v_proj = (linear(hidden, self.groups * self.size) for _ in range(2))
        self.q_norm, self.k_norm, self.o_norm = Norm(self.size, eps), Norm(self.size, eps), Norm(width, eps)

    def forward(self, x, cos, sin, decay):
        q = rotate(self.q_norm(self.q_proj(x).view(-1, self.heads, self.size)), cos, sin)
        k = rotate(self.k_norm(self.k_proj(x).view(-1, self.groups, self.size)), cos, sin)
        v = self.v_proj(x).view(-1, self.groups, self.size)
        k, v = (t.repeat_interleave(self.heads // self.groups, 1) for t in (k, v))
        mixed = attention.lightning(q, k, v, decay).flatten(1)
        return self.o_proj(self.o_norm(mixed) * torch.sigmoid(self.z_proj(x)))


class Sparse(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, self.size = config["hidden_size"], config["head_dim"]
        width = config["num_attention_heads"] * self.size
        self.q_proj, self.o_gate, self.o_proj = linear(hidden, width), linear(hidden, width), linear(width, hidden)
        self.k_proj, self.v_proj = (linear(hidden, config["num_key_value_heads"] * self.size) for _ in range(2))

    def project(self, x):
        """q, k and v, each [tokens, heads, d]."""
        return tuple(p(x).view(len(x), -1, self.size) for p in (self.q_proj, self.k_proj, self.v_proj))

    def output(self, x, mixed):
        return self.o_proj(mixed * torch.sigmoid(self.o_gate(x)))


class Layer(nn.Module):
    def __init__(self, config, kind):
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.sparse = kind == "minicpm4"
        self.scale = config["scale_depth"] / math.sqrt(config["num_hidden_layers"])
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden, eps), Norm(hidden, eps)
        self.self_attn = Sparse(config) if self.sparse else Lightning(config)
        self.mlp = Mlp(config)

    def lightning(self, h, cos, sin, decay):
        h = h + self.scale * self.self_attn(self.input_layernorm(h), cos, sin, decay)
        return h + self.scale * self.mlp(self.post_attention_layernorm(h))

    def sparse_inputs(self, h):
        return self.self_attn.project(self.input_layernorm(h))

    def sparse_outputs(self, h, mixed):
        h = h + self.scale * self.self_attn.output(self.input_layernorm(h), mixed)
        return h + self.scale * self.mlp(self.post_attention_layernorm(h))


class Plain:
    """The parts that a GPU has faster versions of; see kernels.Compiled."""

    choose = staticmethod(attention.choose_blocks)
    attend = staticmethod(attention.attend)
    selection_loss = staticmethod(attention.selection_loss)
    lightning = staticmethod(Layer.lightning)
    sparse_inputs = staticmethod(Layer.sparse_inputs)
    sparse_outputs = staticmethod(Layer.sparse_outputs)


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config, kind) for kind in config["mixer_types"])
        self.norm = Norm(config["hidden_size"], config["rms_norm_eps"])


class Model(nn.Module):
    """Without the config's optional parts: output norm, gates, q/k norm, RoPE in lightning layers are as released."""

    def __init__(self, config, parts=Plain):
        super().__init__()
        self.config, self.parts = config, parts
        self.model = Decoder(config)
        self.lm_head = linear(config["hidden_size"], config["vocab_size"])

    def initialise(self, generator):
        """Activations of the order of one; outputs of the residual branches start small."""
        hidden = self.config["hidden_size"]
        for name, parameter in sorted(self.named_parameters()):
            if parameter.dim() == 1:
                continue
            std = 1 / self.config["scale_emb"] if "embed_tokens" in name else parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std *= 0.5
            if name.startswith("lm_head"):
                std *= 0.5 * hidden / self.config["dim_model_base"]
            nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(self, tokens, layout: Layout, sparse: bool, rows=None):
        """Normed output rows of tokens [batch, length], and the mean selection loss of `rows` [batch, m] (0 without)."""
        parts, config = self.parts, self.config
        h = F.embedding(tokens.flatten(), self.model.embed_tokens.weight) * config["scale_emb"]
        if torch.is_autocast_enabled():
            h = h.to(torch.bfloat16)
        losses = []
        for layer in self.model.layers:
            if not layer.sparse:
                h = parts.lightning(layer, h, layout.cos, layout.sin, layout.decay)
                continue
            q, k, v = (t.unflatten(0, (layout.batch, layout.length)) for t in parts.sparse_inputs(layer, h))
            allowed = None
            if sparse:
                with torch.no_grad():
                    allowed = parts.choose(q, k, config["sparse_config"])
            mixed = parts.attend(q, k, v, allowed).flatten(0, 1).flatten(1)
            if rows is not None:
                losses.append(parts.selection_loss(q, k, rows, config["sparse_config"]))
            h = parts.sparse_outputs(layer, h, mixed)
        return self.model.norm(h), sum(losses) / len(losses) if losses else h.new_zeros(())

    def logits(self, hidden):
        return self.lm_head(hidden / (self.config["hidden_size"] / self.config["dim_model_base"]))
