# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton form of `norm_rotary`: one program for each token, whose row is normed and turned in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _row(x_at, weight_at, cos_at, sin_at, out_at, x_stride, table_stride, width, pairs, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    kind = out_at.dtype.element_ty
    x = tl.load(x_at + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    normed = x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps))
    weight = tl.load(weight_at + column, mask=inside, other=0.0).to(tl.float32)
    weighted = (normed.to(kind).to(tl.float32) * weight).to(kind).to(tl.float32)
    even, odd = tl.split(tl.reshape(weighted, (BLOCK // 2, 2)))
    pair = tl.arange(0, BLOCK // 2)
    # Every head turns by the same angles, so few lines of the table serve the whole row.
    angle = row * table_stride + pair % pairs
    is_pair = pair < width // 2
    cos = tl.load(cos_at + angle, mask=is_pair, other=0.0)
    sin = tl.load(sin_at + angle, mask=is_pair, other=0.0)
    turned = tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (BLOCK,))
    tl.store(out_at + row * width + column, turned.to(kind), mask=inside)


def norm_rotary(x: Tensor, weight: Tensor, table: Tensor, heads: int, eps: float) -> Tensor:
    """See `norm_rotary.norm_rotary`; `x` may be some columns of a wider tensor."""
    rows, width = x.shape
    out = torch.empty((rows, heads, width // heads), dtype=x.dtype, device=x.device)
    cos, sin = table
    _row[(rows,)](
        x, weight, cos, sin, out, x.stride(0), cos.stride(0), width, cos.shape[-1], eps,
        BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return out
