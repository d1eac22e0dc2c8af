# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton forms of `vae_norm`: channels last, so a pixel's channels lie side by side and a program takes some pixels."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.generators.flashtalk.kernels import vae_norm
from engine.generators.flashtalk.kernels.vae_norm import NORM_FLOOR, room_like

_TILE = 4096
"""Numbers that one program holds; at eight warps 16 for each thread."""


@triton.jit
def _pixels(
    x_at, before_at, gamma_at, bias_at, out_at, old, pixels, width, root, floor,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    is_channel = channel < width
    is_old = (pixel < old) & is_channel
    is_new = (pixel >= old) & (pixel < pixels) & is_channel
    kind = out_at.dtype.element_ty
    x = tl.load(x_at + (pixel - old) * width + channel, mask=is_new, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.where(is_new, tl.load(bias_at + channel, mask=is_channel, other=0.0).to(tl.float32), 0.0)
    length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), floor)[:, None]
    gamma = tl.load(gamma_at + channel, mask=is_channel, other=0.0).to(tl.float32)
    y = x * (root / length) * gamma
    y = y / (1.0 + tl.exp(-y))
    at = out_at + pixel * width + channel
    tl.store(at, y.to(kind), mask=is_new)
    tl.store(at, tl.load(before_at + pixel * width + channel, mask=is_old, other=0.0), mask=is_old)


@triton.jit
def _sum(inner_at, x_at, bias_at, out_at, count, width, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(inner_at + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(bias_at + at % width, mask=inside, other=0.0)
    tl.store(out_at + at, total.to(out_at.dtype.element_ty), mask=inside)


def norm_silu(x: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `vae_norm.norm_silu`."""
    if not _is_last(x):
        return vae_norm.norm_silu(x, gamma, bias)
    out = torch.empty_like(x)
    _launch(x, x, 0, gamma, bias, out)
    return out


def norm_silu_join(x: Tensor, before: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `vae_norm.norm_silu_join`; one pass that joins, norms and bends."""
    if not (_is_last(x) and _is_last(before)):
        return vae_norm.norm_silu_join(x, before, gamma, bias)
    joined = room_like(before, before.shape[2] + x.shape[2])
    _launch(x, before, before.shape[2], gamma, bias, joined)
    return joined


def add_bias(inner: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """See `vae_norm.add_bias`."""
    if not (_is_last(inner) and _is_last(x)):
        return vae_norm.add_bias(inner, x, bias)
    out = torch.empty_like(inner)
    count = inner.numel()
    _sum[(triton.cdiv(count, _TILE),)](inner, x, bias, out, count, inner.shape[1], BLOCK=_TILE, num_warps=8)
    return out


def _launch(x: Tensor, before: Tensor, earlier: int, gamma: Tensor, bias: Tensor | None, out: Tensor) -> None:
    width, in_frame = x.shape[1], x.shape[3] * x.shape[4]
    pixels, channels = (earlier + x.shape[2]) * in_frame, triton.next_power_of_2(width)
    block = max(1, _TILE // channels)
    _pixels[(triton.cdiv(pixels, block),)](
        x, before, gamma, gamma if bias is None else bias, out,
        earlier * in_frame, pixels, width, math.sqrt(width), NORM_FLOOR,
        HAS_BIAS=bias is not None, BLOCK=block, CHANNELS=channels, num_warps=8,
    )  # fmt: skip


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d)
