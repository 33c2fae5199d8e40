"""The training model's parts on a GPU: fused by torch.compile, attention by FlashAttention or FlexAttention."""
import copy
import functools

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

import attention
from model import Layer, Plain

TILE = 128  # FlexAttention's blocks

torch._dynamo.config.recompile_limit = 64  # a phase of training brings new shapes
_flex = torch.compile(flex_attention, dynamic=False)
_block_values = torch.compile(attention.block_values, dynamic=False)


@functools.cache
def _causal_tiles(n, device) -> BlockMask:
    """All tiles up to the diagonal, each masked token by token."""
    tiles = -(-n // TILE)
    indices = torch.arange(tiles, device=device, dtype=torch.int32)
    return BlockMask.from_kv_blocks((indices + 1)[None, None], indices.expand(1, 1, tiles, tiles).contiguous(),
                                    BLOCK_SIZE=TILE, seq_lengths=(n, n))


def _block_mask(allowed, repeat) -> BlockMask:
    def mask_mod(batch, head, query, key):
        return (query >= key) & allowed[batch, head // repeat, query, key // attention.BLOCK]

    mask = copy.copy(_causal_tiles(allowed.shape[2], allowed.device))
    mask.mask_mod = mask_mod
    return mask


def attend(q, k, v, allowed):
    """attention.attend without its n x n arrays."""
    repeat = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.repeat_interleave(repeat, 2).transpose(1, 2), v.repeat_interleave(repeat, 2).transpose(1, 2)
    if allowed is None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        out = _flex(q, k, v, block_mask=_block_mask(allowed, repeat))
    return out.transpose(1, 2)


class Eager(Plain):
    """For shapes that come only a few times."""

    attend = staticmethod(attend)


class Compiled(Eager):
    """For training, where every step has the same number of tokens."""

    lightning = staticmethod(torch.compile(Layer.lightning, dynamic=False))
    sparse_inputs = staticmethod(torch.compile(Layer.sparse_inputs, dynamic=False))
    sparse_outputs = staticmethod(torch.compile(Layer.sparse_outputs, dynamic=False))
    choose = staticmethod(functools.partial(attention.choose_blocks, values_of=_block_values))
