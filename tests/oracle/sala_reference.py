#!/usr/bin/env python3
"""An oracle for MiniCPM-SALA: the whole forward pass in float64 numpy, written for reading, not speed.

It defines what the engine must compute.  Every step is the plainest form of the model's equations
(see README.md for their sources); nothing is chunked, cached, fused or approximated except where the model itself
approximates (the log-sum-exp of stage 1, which the model takes over the coarse keys).

    make_weights(config, seed)            -> {tensor name: float32 array already rounded to bf16}
    Oracle(config, weights).run(tokens)   -> Trace: logits, per-layer keys/values, states, block choices
    write_safetensors(path, tensors)      -> a checkpoint in the published layout
    python3 sala_reference.py OUT_DIR     -> writes the golden cases described in README.md

Shapes: n tokens, d head size, H query heads, G key/value heads, D hidden size.
"""
import json
import math
import os
import struct
import sys
from dataclasses import dataclass, field

import numpy as np

# --------------------------------------------------------------------------- numbers


def to_bf16(x):
    """Rounds float32 to the nearest bfloat16 (ties to even), kept as float32."""
    u = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    r = ((u >> 16) & 1) + np.uint32(0x7FFF)
    return ((u + r) & np.uint32(0xFFFF0000)).view(np.float32)


def bf16_bits(x):
    return (to_bf16(x).view(np.uint32) >> 16).astype(np.uint16)


def hash_uniform(seed, name, shape):
    """Uniform in [-1, 1) from SplitMix64 over (seed, name, flat index): same on every machine."""
    h = np.uint64(1469598103934665603)
    for b in f"{seed}/{name}".encode():
        h = np.uint64((int(h) ^ b) * 1099511628211 % (1 << 64))
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = h + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    return (2.0 * u - 1.0).reshape(shape).astype(np.float32)


# --------------------------------------------------------------------------- model


def layer_kinds(config):
    lightning = {"lightning", "lightning_attn", "lightning-attn"}
    return ["lightning" if m in lightning else "sparse" for m in config["mixer_types"]]


def tensor_shapes(config):
    """Name -> shape of every tensor of a checkpoint, in the published naming."""
    D, I, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    d, H, G = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    ld = config.get("lightning_head_dim") or d
    LH, LG = config.get("lightning_nh") or H, config.get("lightning_nkv") or G
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (V, D)
    for i, kind in enumerate(layer_kinds(config)):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = (D,)
        shapes[p + "post_attention_layernorm.weight"] = (D,)
        shapes[p + "mlp.gate_proj.weight"] = (I, D)
        shapes[p + "mlp.up_proj.weight"] = (I, D)
        shapes[p + "mlp.down_proj.weight"] = (D, I)
        a = p + "self_attn."
        if kind == "sparse":
            shapes[a + "q_proj.weight"] = (H * d, D)
            shapes[a + "k_proj.weight"] = (G * d, D)
            shapes[a + "v_proj.weight"] = (G * d, D)
            shapes[a + "o_proj.weight"] = (D, H * d)
            if config.get("attn_use_output_gate", True):
                shapes[a + "o_gate.weight"] = (H * d, D)
        else:
            shapes[a + "q_proj.weight"] = (LH * ld, D)
            shapes[a + "k_proj.weight"] = (LG * ld, D)
            shapes[a + "v_proj.weight"] = (LG * ld, D)
            shapes[a + "o_proj.weight"] = (D, LH * ld)
            if config.get("qk_norm", True):
                shapes[a + "q_norm.weight"] = (ld,)
                shapes[a + "k_norm.weight"] = (ld,)
            if config.get("use_output_norm", True):
                shapes[a + "o_norm.weight"] = (LH * ld,)
            if config.get("use_output_gate", True):
                shapes[a + "z_proj.weight"] = (LH * ld, D)
    return shapes


def make_weights(config, seed):
    """Random weights whose activations keep a sane scale, so that attention is neither flat nor saturated."""
    out = {}
    for name, shape in tensor_shapes(config).items():
        u = hash_uniform(seed, name, shape)
        if len(shape) == 1:
            w = 1.0 + 0.1 * u
        elif name.endswith("embed_tokens.weight"):
            w = u / config.get("scale_emb", 1.0)
        elif name.endswith(("q_proj.weight", "k_proj.weight")):
            w = u * 3.0 / math.sqrt(shape[1])  # sharper attention: block choices with clear margins
        else:
            w = u * 1.7 / math.sqrt(shape[1])
        out[name] = to_bf16(w)
    return out


def alibi_slopes(n):
    """Decay rate per lightning head (positive).  Closed form for a power of two, interleaved otherwise."""

    def pow2(m):
        start = 2.0 ** (-(2.0 ** -(math.log2(m) - 3)))
        return [start * start**i for i in range(m)]

    if math.log2(n).is_integer():
        return pow2(n)
    m = 2 ** math.floor(math.log2(n))
    return pow2(m) + alibi_slopes(2 * m)[0::2][: n - m]


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def rope(x, positions, theta):
    """Rotates the two halves of the last axis; x [n, heads, d]."""
    d = x.shape[-1]
    inv = theta ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    ang = positions[:, None].astype(np.float64) * inv[None]
    c, s = np.cos(ang)[:, None], np.sin(ang)[:, None]
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def mean_pool(k, kernel, stride):
    """k [n, G, d] -> [m, G, d], m = windows wholly inside the sequence."""
    n = k.shape[0]
    m = 0 if n < kernel else (n - kernel) // stride + 1
    return np.stack([k[j * stride : j * stride + kernel].mean(0) for j in range(m)]) if m else k[:0]


def visible_windows(t, kernel, stride, count):
    """How many pooled windows end at or before position t (0-based, inclusive)."""
    return min(count, max(0, (t + 1 - kernel) // stride + 1))


@dataclass
class Trace:
    logits: np.ndarray  # [n, vocab]
    keys: dict = field(default_factory=dict)  # sparse layer -> [n, G, d]
    values: dict = field(default_factory=dict)
    states: dict = field(default_factory=dict)  # lightning layer -> [heads, d_k, d_v] after the last token
    blocks: dict = field(default_factory=dict)  # sparse layer -> {position: [G][chosen blocks, ascending]}
    margins: dict = field(default_factory=dict)  # sparse layer -> {position: [G] gap at the top-k cut}
    hidden: dict = field(default_factory=dict)  # layer -> output [n, D]


class Oracle:
    def __init__(self, config, weights):
        self.c = config
        self.w = {k: v.astype(np.float64) for k, v in weights.items()}
        self.kinds = layer_kinds(config)

    def run(self, tokens, sparse=None):
        """sparse: force the sparse (True) or dense (False) regime; default: len(tokens) >= dense_len."""
        c, w = self.c, self.w
        n = len(tokens)
        if sparse is None:
            sparse = n >= c["sparse_config"]["dense_len"]
        tr = Trace(None)
        scale_res = c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
        h = w["model.embed_tokens.weight"][np.asarray(tokens)] * c["scale_emb"]
        for i, kind in enumerate(self.kinds):
            p = f"model.layers.{i}."
            x = rms_norm(h, w[p + "input_layernorm.weight"], c["rms_norm_eps"])
            a = self.sparse_attention(i, x, tr, sparse) if kind == "sparse" else self.lightning(i, x, tr)
            h = h + scale_res * a
            x = rms_norm(h, w[p + "post_attention_layernorm.weight"], c["rms_norm_eps"])
            g, u = x @ w[p + "mlp.gate_proj.weight"].T, x @ w[p + "mlp.up_proj.weight"].T
            h = h + scale_res * ((g * sigmoid(g) * u) @ w[p + "mlp.down_proj.weight"].T)
            tr.hidden[i] = h
        h = rms_norm(h, w["model.norm.weight"], c["rms_norm_eps"])
        head = w["model.embed_tokens.weight"] if c.get("tie_word_embeddings", False) else w["lm_head.weight"]
        tr.logits = (h / (c["hidden_size"] / c["dim_model_base"])) @ head.T
        return tr

    # -- lightning attention: S_t = e^-s S_{t-1} + k_t v_t^T,  o_t = scale q_t S_t
    def lightning(self, i, x, tr):
        c, w = self.c, self.w
        p = f"model.layers.{i}.self_attn."
        n = x.shape[0]
        H = c.get("lightning_nh") or c["num_attention_heads"]
        G = c.get("lightning_nkv") or c["num_key_value_heads"]
        d = c.get("lightning_head_dim") or c["head_dim"]
        q = (x @ w[p + "q_proj.weight"].T).reshape(n, H, d)
        k = (x @ w[p + "k_proj.weight"].T).reshape(n, G, d)
        v = (x @ w[p + "v_proj.weight"].T).reshape(n, G, d)
        if c.get("qk_norm", True):
            q = rms_norm(q, w[p + "q_norm.weight"], c["rms_norm_eps"])
            k = rms_norm(k, w[p + "k_norm.weight"], c["rms_norm_eps"])
        if c.get("lightning_use_rope", True):
            pos = np.arange(n)
            q, k = rope(q, pos, c["rope_theta"]), rope(k, pos, c["rope_theta"])
        k, v = np.repeat(k, H // G, 1), np.repeat(v, H // G, 1)
        scale = {"1/sqrt(d)": d**-0.5, "1/d": 1.0 / d}.get(c.get("lightning_scale", "1/sqrt(d)"), 1.0)
        decay = np.exp(-np.asarray(alibi_slopes(H)))
        S = np.zeros((H, d, d))
        o = np.empty((n, H, d))
        for t in range(n):
            S = decay[:, None, None] * S + k[t][:, :, None] * v[t][:, None, :]
            o[t] = scale * np.einsum("hk,hkv->hv", q[t], S)
        tr.states[i] = S
        o = o.reshape(n, H * d)
        if c.get("use_output_norm", True):
            o = rms_norm(o, w[p + "o_norm.weight"], c["rms_norm_eps"])
        if c.get("use_output_gate", True):
            o = o * sigmoid(x @ w[p + "z_proj.weight"].T)
        return o @ w[p + "o_proj.weight"].T

    # -- InfLLM-V2: causal attention over blocks that stage 1 picked per token and key/value head
    def sparse_attention(self, i, x, tr, sparse):
        c, w = self.c, self.w
        p = f"model.layers.{i}.self_attn."
        n = x.shape[0]
        H, G, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        q = (x @ w[p + "q_proj.weight"].T).reshape(n, H, d)
        k = (x @ w[p + "k_proj.weight"].T).reshape(n, G, d)
        v = (x @ w[p + "v_proj.weight"].T).reshape(n, G, d)
        if c.get("attn_use_rope", False):
            pos = np.arange(n)
            q, k = rope(q, pos, c["rope_theta"]), rope(k, pos, c["rope_theta"])
        tr.keys[i], tr.values[i] = k, v
        if sparse:
            allowed = self.choose_blocks(i, q, k, tr)  # [n, G, blocks] bool
        B = c["sparse_config"]["block_size"]
        o = np.empty((n, H, d))
        for t in range(n):
            for g in range(G):
                sel = np.arange(t + 1)
                if sparse:
                    sel = sel[allowed[t, g, sel // B]]
                s = q[t, g * (H // G) : (g + 1) * (H // G)] @ k[sel, g].T * d**-0.5
                s = np.exp(s - s.max(-1, keepdims=True))
                o[t, g * (H // G) : (g + 1) * (H // G)] = s / s.sum(-1, keepdims=True) @ v[sel, g]
        o = o.reshape(n, H * d)
        if c.get("attn_use_output_gate", True):
            o = o * sigmoid(x @ w[p + "o_gate.weight"].T)
        return o @ w[p + "o_proj.weight"].T

    def choose_blocks(self, i, q, k, tr):
        c, s = self.c, self.c["sparse_config"]
        n, H, d = q.shape
        G = k.shape[1]
        R = H // G
        fine = mean_pool(k, s["kernel_size"], s["kernel_stride"])
        coarse = mean_pool(k, 4 * s["kernel_size"], 4 * s["kernel_stride"])
        B = s["block_size"]
        per = B // s["kernel_stride"]
        local, blocks = s["window_size"] // B, (n + B - 1) // B
        top = min(s["topk"] + local, blocks)
        allowed = np.zeros((n, G, blocks), bool)
        tr.blocks[i], tr.margins[i] = {}, {}
        for t in range(n):
            own = t // B
            nf = visible_windows(t, s["kernel_size"], s["kernel_stride"], len(fine))
            nc = visible_windows(t, 4 * s["kernel_size"], 4 * s["kernel_stride"], len(coarse))
            chosen, gaps = [], []
            for g in range(G):
                qs = q[t, g * R : (g + 1) * R]
                score = np.zeros(max(len(fine), 1))
                if nf and nc:
                    z = qs @ coarse[:nc, g].T * d**-0.5
                    lse = z.max(-1) + np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1))
                    score[:nf] = np.exp(qs @ fine[:nf, g].T * d**-0.5 - lse[:, None]).sum(0)
                value = np.full(blocks, -np.inf)
                for b in range(blocks):
                    if b < s["init_blocks"] or own - local <= b <= own:
                        value[b] = np.inf
                    else:
                        lo, hi = max(0, b * per - 1), min(b * per + per, len(fine))
                        value[b] = score[lo:hi].max() if hi > lo else -np.inf
                order = np.lexsort((np.arange(blocks), -value))  # larger first, then the lower index
                pick = np.sort(order[:top])
                pick = pick[pick <= own]
                allowed[t, g, pick] = True
                chosen.append(pick.tolist())
                past = np.sort(value[: own + 1])[::-1]
                gaps.append(float(past[top - 1] - past[top]) if own + 1 > top else float("inf"))
            tr.blocks[i][t], tr.margins[i][t] = chosen, gaps
        return allowed


# --------------------------------------------------------------------------- files


def write_safetensors(path, tensors):
    """tensors: name -> array.  float32 arrays named as checkpoint weights are stored as BF16."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, arr) in tensors.items():
        raw = np.ascontiguousarray(arr).tobytes()
        header[name] = {"dtype": dtype, "shape": list(arr.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for b in blobs:
            f.write(b)


def write_checkpoint(folder, config, weights):
    os.makedirs(folder, exist_ok=True)
    json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=1)
    write_safetensors(os.path.join(folder, "model.safetensors"), {k: ("BF16", bf16_bits(v)) for k, v in weights.items()})


def base_config(**kw):
    c = dict(
        architectures=["MiniCPMSALAForCausalLM"], model_type="minicpm_sala", torch_dtype="bfloat16",
        hidden_size=128, intermediate_size=320, vocab_size=512, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=2, head_dim=32,
        lightning_nh=4, lightning_nkv=4, lightning_head_dim=32, lightning_scale="1/sqrt(d)",
        lightning_use_rope=True, attn_use_rope=False, qk_norm=True, use_output_norm=True,
        use_output_gate=True, attn_use_output_gate=True, attention_bias=False,
        rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=524288, tie_word_embeddings=False,
        scale_emb=12.0, scale_depth=1.4, dim_model_base=32, mup_denominator=32, hidden_act="silu",
        bos_token_id=1, eos_token_id=[2, 511], pad_token_id=2,
        mixer_types=["minicpm4", "lightning-attn", "lightning-attn", "minicpm4", "lightning-attn", "lightning-attn"],
        sparse_config=dict(kernel_size=32, kernel_stride=16, init_blocks=1, block_size=64, window_size=128,
                           topk=4, use_nope=False, dense_len=512),
    )
    c.update(kw)
    return c


CASES = {
    # name: (config overrides, seed, prompt length, continuation length)
    "dense": (dict(), 11, 300, 8),
    "sparse": (dict(), 11, 1500, 8),
    "crossing": (dict(), 12, 500, 24),  # starts dense, crosses dense_len while decoding
    "wide": (dict(hidden_size=128, intermediate_size=256, vocab_size=256, eos_token_id=[2, 255], num_attention_heads=16,
                  num_key_value_heads=1, head_dim=128, lightning_nh=4, lightning_nkv=4, lightning_head_dim=128,
                  num_hidden_layers=3, mixer_types=["minicpm4", "lightning-attn", "minicpm4"]), 13, 1100, 8),
    # ^ the released checkpoint's head size and its 16 query heads to a key/value head
    "odd": (dict(lightning_nh=6, lightning_nkv=2, mixer_types=["minicpm4", "lightning-attn", "minicpm4", "minicpm4",
                 "lightning-attn", "lightning-attn"]), 14, 777, 8),  # a head count that is no power of two, grouped
}


def golden(folder, cases):
    """A case holds the tokens of prompt and greedy continuation, and what the model gives along them."""
    for name, (over, seed, n, extra) in cases.items():
        config = base_config(**over)
        weights = make_weights(config, seed)
        o = Oracle(config, weights)
        tokens = [int(x) for x in ((hash_uniform(seed, "prompt", (n,)) + 1) / 2 * (config["vocab_size"] - 4)).astype(int) + 3]
        dense_len = config["sparse_config"]["dense_len"]
        prompt = list(tokens)
        tr0 = o.run(prompt)
        full, steps, last = list(prompt), [], tr0
        for _ in range(extra):
            steps.append(last.logits[-1])
            full.append(int(np.argmax(last.logits[-1])))
            last = self_decode(o, full, len(prompt), dense_len)
        path = os.path.join(folder, name)
        write_checkpoint(path, config, weights)
        t = {"prompt": ("I32", np.asarray(prompt, np.int32)), "continuation": ("I32", np.asarray(full[n:], np.int32)),
             "prompt_logits_last16": ("F32", tr0.logits[-16:].astype(np.float32)),
             "step_logits": ("F32", np.asarray(steps, np.float32))}
        for i, s in tr0.states.items():
            t[f"state.{i}"] = ("F32", s.astype(np.float32))
        for i in tr0.keys:
            t[f"key.{i}"] = ("F32", tr0.keys[i].astype(np.float32))
            t[f"value.{i}"] = ("F32", tr0.values[i].astype(np.float32))
            if tr0.blocks.get(i):
                picks = [n - 1, n - 65, n // 2, n // 3]
                width = max(len(x) for p in picks for x in tr0.blocks[i][p])
                rows = np.full((len(picks), config["num_key_value_heads"], width), -1, np.int32)
                for a, p in enumerate(picks):
                    for g, x in enumerate(tr0.blocks[i][p]):
                        rows[a, g, : len(x)] = x
                t[f"block_positions.{i}"] = ("I32", np.asarray(picks, np.int32))
                t[f"blocks.{i}"] = ("I32", rows)
        for i, h in tr0.hidden.items():
            t[f"hidden_last.{i}"] = ("F32", h[-1].astype(np.float32))
        write_safetensors(os.path.join(path, "golden.safetensors"), t)
        worst = min((m for d in tr0.margins.values() for g in d.values() for m in g), default=float("inf"))
        top2 = [np.sort(s)[-2:] for s in steps]
        print(f"{name}: {n}+{extra} tokens, greedy {full[n:n+8]}, smallest gap at a top-k cut {worst:.3g}, "
              f"smallest gap between the two best logits {min(b - a for a, b in top2):.3g}", flush=True)


def self_decode(o, full, prompt_len, dense_len):
    """The last position's logits when `full` was served as a prompt and then decoded one token at a time.

    The regime of a position is fixed when it is computed: prompt tokens by the prompt's length, a decoded
    token by the length at that step.  Where the two differ (a dense prompt that crosses dense_len while
    decoding), keys and values of earlier positions stay as they were computed.
    """
    regimes = [prompt_len >= dense_len] * prompt_len + [p + 1 >= dense_len for p in range(prompt_len, len(full))]
    if all(r == regimes[0] for r in regimes):
        return o.run(full, sparse=regimes[0])
    return MixedOracle(o, regimes).run(full)


class MixedOracle(Oracle):
    def __init__(self, base, regimes):
        self.c, self.w, self.kinds, self.regimes = base.c, base.w, base.kinds, np.asarray(regimes)

    def run(self, tokens, sparse=None):
        return super().run(tokens, sparse=True)

    def choose_blocks(self, i, q, k, tr):
        allowed = super().choose_blocks(i, q, k, tr)
        allowed[~self.regimes[: len(allowed)]] = True
        return allowed


if __name__ == "__main__":
    golden(sys.argv[1], CASES)
