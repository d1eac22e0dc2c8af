"""Attention in 8 bits, computed plainly: what a GPU's kernel for it rounds, so that its error can be known anywhere.

After SageAttention 2 (Zhang et al., arXiv 2411.10958): keys without their mean over the tokens, which no softmax sees;
queries and keys in INT8 with a scale for each block of tokens of a head; the weights of the softmax and the values in
FP8 (e4m3), the values with a scale for each channel; sums in float32. A kernel that rescales weights while it goes
through the keys rounds them relative to the largest so far instead of the largest of all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_INT8, _FP8 = 127.0, 448.0
_QUERY_BLOCK, _KEY_BLOCK = 32, 64
"""Tokens that share a scale: what a warp and a step of the kernel work on."""
_QUERIES = 1024
"""Queries whose logits are held at once."""


def attend_8bit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q [tokens, heads, head_dim] to k, v [keys, heads, head_dim], shaped and typed like q."""
    queries, keys, values = (x.transpose(0, 1).float() for x in (q, k, v))
    keys = _rounded_int8(keys - keys.mean(dim=1, keepdim=True), _KEY_BLOCK)
    values = _rounded_fp8(values)
    queries = _rounded_int8(queries * q.shape[-1] ** -0.5, _QUERY_BLOCK)
    outs = []
    for part in queries.split(_QUERIES, dim=1):
        logits = part @ keys.transpose(1, 2)
        weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
        seen = (weights * _FP8).to(torch.float8_e4m3fn).float() / _FP8 @ values
        # The sum is that of the weights before they are rounded, as the kernel keeps it.
        outs.append(seen / weights.sum(dim=-1, keepdim=True))
    return torch.cat(outs, dim=1).transpose(0, 1).to(q.dtype)


def _rounded_int8(x: Tensor, block: int) -> Tensor:
    """`x` [heads, tokens, head_dim] as INT8 with one scale for each `block` tokens holds it."""
    tokens = x.shape[1]
    blocks = F.pad(x, (0, 0, 0, -tokens % block)).unflatten(1, (-1, block))
    scale = blocks.abs().amax(dim=(2, 3), keepdim=True).clamp_min(1e-20) / _INT8
    return (torch.round(blocks / scale) * scale).flatten(1, 2)[:, :tokens]


def _rounded_fp8(x: Tensor) -> Tensor:
    """`x` [heads, tokens, head_dim] as FP8 with one scale for each channel of a head holds it."""
    scale = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-20) / _FP8
    return (x / scale).to(torch.float8_e4m3fn).float() * scale
