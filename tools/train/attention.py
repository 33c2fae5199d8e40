"""The two ways of mixing tokens, in plain PyTorch: lightning attention in chunks and InfLLM-V2's choice of blocks.

Shapes: batch B, length n, query heads H, key/value heads G, head size d. Scores are scaled by 1/sqrt(d).
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

CHUNK = 128
STRIDE, BLOCK = 16, 64  # of the fine tier, and tokens in a block; a fine window is two strides, a coarse one two blocks
NEVER = -1e30


def slopes(heads: int) -> list[float]:
    """ALiBi's decay rates."""
    def power_of_two(n):
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    lower = 2 ** int(math.log2(heads))
    return power_of_two(lower) + slopes(2 * lower)[0::2][:heads - lower] if lower < heads else power_of_two(heads)


@dataclass
class Decays:
    """What a lightning layer needs of the rates, for sequences of `chunks` chunks each, `batch` of them in a row."""

    within: torch.Tensor  # [H, C, C] of a key on a later query in the chunk
    into: torch.Tensor  # [H, C] of the state before the chunk on its queries
    out_of: torch.Tensor  # [H, C] of keys on the state after the chunk
    between: torch.Tensor  # [H, batch * chunks, batch * chunks] of a chunk's state on the state before a later chunk


def decays(heads, batch, chunks, device, dtype) -> Decays:
    rates = torch.tensor(slopes(heads), device=device, dtype=torch.float64)
    t = torch.arange(CHUNK, device=device, dtype=torch.float64)
    within = torch.exp(-rates[:, None, None] * (t[:, None] - t)).tril()
    into = torch.exp(-rates[:, None] * (t + 1))
    out_of = torch.exp(-rates[:, None] * (CHUNK - 1 - t))
    i = torch.arange(batch * chunks, device=device)
    gap = CHUNK * (i[:, None] - 1 - i)
    earlier = (gap >= 0) & (i[:, None] // chunks == i // chunks)
    between = torch.where(earlier, torch.exp(-rates[:, None, None] * gap.clamp(min=0)), torch.zeros((), device=device,
                                                                                                    dtype=torch.float64))
    return Decays(*(x.to(dtype) for x in (within, into, out_of, between)))


def lightning(q, k, v, decay: Decays):
    """q, k, v [tokens, H, d] of whole sequences in a row, each of whole chunks -> [tokens, H, d]."""
    tokens, heads, size = q.shape
    q, k, v = (x.view(-1, CHUNK, heads, size).transpose(1, 2) for x in (q, k, v))  # [chunks, H, C, d]
    wide = decay.into.dtype
    near = (q @ k.transpose(-1, -2)).to(wide) * decay.within
    out = near.to(v.dtype) @ v
    states = (k.to(wide) * decay.out_of[..., None]).to(v.dtype).transpose(-1, -2) @ v  # [chunks, H, d, d]
    before = decay.between.to(v.dtype) @ states.transpose(0, 1).flatten(2)  # [H, chunks, d * d]
    before = before.view(heads, -1, size, size).transpose(0, 1)
    out = out.to(wide) + ((q.to(wide) * decay.into[..., None]).to(v.dtype) @ before).to(wide)
    return (out * size ** -0.5).to(v.dtype).transpose(1, 2).reshape(tokens, heads, size)


def tier(k, window, stride):
    """Means of keys k [B, n, G, d] over whole windows -> [B, windows, G, d]."""
    if k.shape[1] < window:
        return k[:, :0]
    # A window is two strides: the mean of two neighbouring means.
    wide = k if k.dtype == torch.float64 else k.float()
    whole = wide[:, :k.shape[1] // stride * stride].unflatten(1, (-1, stride)).mean(2)
    return ((whole[:, :-1] + whole[:, 1:]) / 2).to(k.dtype)


def block_values(q, k, positions):
    """Stage 1 of queries q [B, m, H, d] at `positions` [B or 1, m] over keys k [B, n, G, d] -> [B, G, m, blocks]."""
    batch, m, heads, size = q.shape
    groups, blocks = k.shape[2], -(-k.shape[1] // BLOCK)
    fine, coarse = tier(k, 2 * STRIDE, STRIDE), tier(k, 2 * BLOCK, BLOCK)
    q = q.view(batch, m, groups, heads // groups, size).permute(0, 2, 3, 1, 4)  # [B, G, R, m, d]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32

    def scores(keys):
        return (q @ keys.permute(0, 2, 3, 1)[:, :, None]).to(wide) * size ** -0.5

    def visible(count, stride):
        seen = torch.div(positions + 1, stride, rounding_mode="floor") - 1
        return (torch.arange(count, device=q.device) < seen[..., None])[:, None, None]  # [B or 1, 1, 1, m, count]

    far, near = visible(coarse.shape[1], BLOCK), visible(fine.shape[1], STRIDE)
    total = scores(coarse).masked_fill(~far, NEVER).logsumexp(-1, keepdim=True)
    score = (scores(fine) - total).masked_fill(~(near & far.any(-1, keepdim=True)), NEVER).exp().sum(2)
    per = BLOCK // STRIDE
    score = F.pad(score, (1, max(0, per * blocks - score.shape[-1])))[..., :per * blocks + 1]
    return F.max_pool1d(score.flatten(0, 2), per + 1, per).view(batch, groups, m, blocks)


def forced_blocks(positions, blocks, sparse):
    """Blocks that are always chosen, and blocks up to the own one: [B or 1, m, blocks] each."""
    own = torch.div(positions, BLOCK, rounding_mode="floor")[..., None]
    block = torch.arange(blocks, device=positions.device)
    past = block <= own
    return past & ((block < sparse["init_blocks"]) | (block >= own - sparse["window_size"] // BLOCK)), past


def choose_blocks(q, k, sparse, values_of=block_values, rows=8192):
    """Blocks each token attends to, [B, G, n, blocks] bool; q [B, n, H, d], k [B, n, G, d]. `rows` bounds the memory."""
    chosen = []
    for first in range(0, q.shape[1], rows):
        part = q[:, first:first + rows]
        positions = torch.arange(first, first + part.shape[1], device=q.device)[None]
        values = values_of(part, k, positions)
        forced, past = forced_blocks(positions, values.shape[-1], sparse)
        values = values.masked_fill(forced[:, None], float("inf"))
        top = min(sparse["topk"] + sparse["window_size"] // BLOCK, values.shape[-1])
        best = values.sort(dim=-1, descending=True, stable=True).indices[..., :top]  # of equals the lower block
        chosen.append(torch.zeros_like(values, dtype=torch.bool).scatter_(-1, best, True) & past[:, None])
    return torch.cat(chosen, 2)


def attend(q, k, v, allowed):
    """Causal attention of q [B, n, H, d] over k, v [B, n, G, d], over the allowed blocks or, if None, over all."""
    n, repeat = q.shape[1], q.shape[2] // k.shape[2]
    mask = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    if allowed is not None:
        mask = mask & allowed.repeat_interleave(BLOCK, -1)[..., :n].repeat_interleave(repeat, 1)
    q, k, v = q.transpose(1, 2), k.repeat_interleave(repeat, 2).transpose(1, 2), v.repeat_interleave(repeat, 2).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, NEVER).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def selection_loss(q, k, rows, sparse):
    """Pulls stage 1's block values towards where attention lies outside the forced blocks.

    Choosing passes no gradient, the values do. For query rows [B, m] of q [B, n, H, d]: cross-entropy between the mass of
    full attention on each block that is not forced, averaged over heads, and the blocks' values as a distribution.
    """
    batch, n, heads, size = q.shape
    groups, blocks = k.shape[2], -(-n // BLOCK)
    picked = q.gather(1, rows[..., None, None].expand(-1, -1, heads, size))
    forced, past = forced_blocks(rows, blocks, sparse)
    free = (past & ~forced)[:, None]  # [B, 1, m, blocks]
    with torch.no_grad():
        grouped = picked.view(batch, -1, groups, heads // groups, size).permute(0, 2, 3, 1, 4)
        scores = (grouped @ k.permute(0, 2, 3, 1)[:, :, None]).float() * size ** -0.5
        later = torch.arange(n, device=q.device) > rows[..., None]
        weights = scores.masked_fill(later[:, None, None], NEVER).softmax(-1).mean(2)  # [B, G, m, n]
        mass = F.pad(weights, (0, blocks * BLOCK - n)).unflatten(-1, (blocks, BLOCK)).sum(-1) * free
    values = (block_values(picked, k, rows) + 1e-6).log().masked_fill(~free, NEVER)
    logs = (values - values.logsumexp(-1, keepdim=True)).clamp(min=-50)
    return -(mass * logs).sum() / mass.sum().clamp(min=1e-3)
