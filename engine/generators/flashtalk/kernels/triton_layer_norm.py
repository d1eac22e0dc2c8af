# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton form of `layer_norm`: one program for each token, whose whole row stays in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def normed_row(
    x_at, branch_at, gate_at, multiply_at, add_at, sum_at, row, column, inside, x_stride, branch_stride, width, eps,
    HAS_BRANCH: tl.constexpr, HAS_GATE: tl.constexpr, IS_MODULATED: tl.constexpr,
):  # fmt: skip
    """One token's row in float32, yet to be rounded; its sum with the branch is stored on the way."""
    kind = x_at.dtype.element_ty
    x = tl.load(x_at + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        branch = tl.load(branch_at + row * branch_stride + column, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            branch = branch * tl.load(gate_at + column, mask=inside, other=0.0)
        rounded = (x + branch).to(kind)
        tl.store(sum_at + row * width + column, rounded, mask=inside)
        x = rounded.to(tl.float32)
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    normed = centred * (1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps))
    multiply = tl.load(multiply_at + column, mask=inside, other=0.0).to(tl.float32)
    add = tl.load(add_at + column, mask=inside, other=0.0).to(tl.float32)
    if IS_MODULATED:
        normed = normed.to(kind).to(tl.float32)
        multiply += 1.0
    return normed * multiply + add


@triton.jit
def _row(
    x_at, branch_at, gate_at, multiply_at, add_at, sum_at, out_at, x_stride, branch_stride, width, eps,
    HAS_BRANCH: tl.constexpr, HAS_GATE: tl.constexpr, IS_MODULATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    out = normed_row(
        x_at, branch_at, gate_at, multiply_at, add_at, sum_at, row, column, inside, x_stride, branch_stride, width, eps,
        HAS_BRANCH, HAS_GATE, IS_MODULATED,
    )  # fmt: skip
    tl.store(out_at + row * width + column, out.to(out_at.dtype.element_ty), mask=inside)


def _launch(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, multiply: Tensor, add: Tensor, eps: float, *, modulated: bool
) -> tuple[Tensor, Tensor]:
    rows, width = x.shape
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    added = torch.empty_like(out) if branch is not None else out
    # Arguments that are switched off still need an address of some tensor.
    _row[(rows,)](
        x, x if branch is None else branch, multiply if gate is None else gate, multiply, add, added, out,
        x.stride(0), 0 if branch is None else branch.stride(0), width, eps,
        HAS_BRANCH=branch is not None, HAS_GATE=gate is not None, IS_MODULATED=modulated,
        BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return added, out


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """See `layer_norm.norm_modulate`."""
    return _launch(x, None, None, scale, shift, eps, modulated=True)[1]


def add_norm_modulate(x: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `layer_norm.add_norm_modulate`."""
    return _launch(x, branch, None, scale, shift, eps, modulated=True)


def add_norm(x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `layer_norm.add_norm`."""
    return _launch(x, branch, None, weight, bias, eps, modulated=False)


def add_gated_norm(
    x: Tensor, branch: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `layer_norm.add_gated_norm`."""
    return _launch(x, branch, gate, weight, bias, eps, modulated=False)
