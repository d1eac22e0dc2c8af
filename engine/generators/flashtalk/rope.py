"""Rotary position embedding over time, rows and columns, and the sinusoidal embedding of timesteps."""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 10000.0


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """How many of the head's `head_dim / 2` channel pairs turn with (time, row, column): 22, 21, 21 of 64."""
    pairs = head_dim // 2
    spatial = pairs // 3
    return pairs - 2 * spatial, spatial, spatial


def rotary_table(grid: tuple[int, int, int], head_dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cosines and sines [2, tokens, 1, head_dim / 2] for tokens in (frame, row, column) order, column fastest.

    Each axis has its own frequency ladder 10000^(-i / its pairs). Made in float64; angles reach hundreds of radians,
    so float32 angles would not do, while a float32 table does.
    """
    angles = []
    for axis, pairs in enumerate(axis_pairs(head_dim)):
        frequencies = _BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        turned = torch.outer(torch.arange(grid[axis], dtype=torch.float64), frequencies)
        shape = [1, 1, 1, pairs]
        shape[axis] = grid[axis]
        angles.append(turned.view(shape).expand(*grid, pairs))
    flat = torch.cat(angles, dim=-1).reshape(-1, 1, head_dim // 2)
    return torch.stack((flat.cos(), flat.sin())).to(dtype)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn adjacent channel pairs (2i, 2i+1) of `x` [..., tokens, heads, head_dim] by `table`'s angles.

    Computed in the table's precision, returned in that of `x`, contiguous. Converting as it reads and rounding as it
    writes, torch needs no wide copies of `x` for this.
    """
    cos, sin = table
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    turned_even, turned_odd = out.unflatten(-1, (-1, 2)).unbind(-1)
    torch.addcmul(even * cos, odd, sin, value=-1, out=turned_even)
    torch.addcmul(even * sin, odd, cos, out=turned_odd)
    return out


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Embedding [n, width] in float64 of `timesteps` [n] (0 to 1000): all cosines, then all sines, with frequencies
    10000^(-j / (width / 2))."""
    half = width // 2
    frequencies = _BASE ** (-torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
    angles = torch.outer(timesteps.to(torch.float64), frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=1)
