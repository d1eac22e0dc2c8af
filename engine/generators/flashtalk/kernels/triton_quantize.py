# pyright: basic, reportMissingImports=false, reportCallIssue=false, reportAssignmentType=false
# pyright: reportOperatorIssue=false, reportReturnType=false
"""Triton form of `quantize`: one program for each token, whose whole row stays in registers until it is 8-bit."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.generators.flashtalk.kernels.triton_layer_norm import normed_row
from engine.generators.flashtalk.quantization.scheme import Scheme, block_width, rotation_signs

_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_ROUNDING = tl.constexpr(1.5 * 2.0**23)
"""What is added to this and has it taken away again is rounded to a whole number, ties to even."""

_LEAST_BLOCK, _LONGEST_BLOCK = 1024, 8192


@triton.jit
def _sylvester(SIZE: tl.constexpr):
    """Its matrix: -1 where the bits that row and column have in common are odd in number."""
    index = tl.arange(0, SIZE)
    common = index[:, None] & index[None, :]
    common ^= common >> 4
    common ^= common >> 2
    common ^= common >> 1
    return (1 - 2 * (common & 1)).to(tl.float32)


@triton.jit
def _turned(x, STAGES: tl.constexpr, BLOCK: tl.constexpr):
    """Sylvester's matrix of size 2 ** STAGES (4, 6 or 8) times each stretch of `x` that long. That of 256 is the one of
    16 for the lowest four bits of its indices, then again for the others; three products of tensor cores each, which
    keep what float32 has."""
    first: tl.constexpr = 64 if STAGES == 6 else 16
    x = tl.dot(tl.reshape(x, (BLOCK // first, first)), _sylvester(first), input_precision="tf32x3")
    if STAGES == 8:
        x = tl.reshape(tl.permute(tl.reshape(x, (BLOCK // 256, 16, 16)), (0, 2, 1)), (BLOCK // 16, 16))
        x = tl.reshape(tl.dot(x, _sylvester(16), input_precision="tf32x3"), (BLOCK // 256, 16, 16))
        x = tl.permute(x, (0, 2, 1))
    return tl.reshape(x, (BLOCK,))


@triton.jit
def _ready(
    x, column, inside, signs_at, inverse_root, STAGES: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """`x` rounded to the tokens' precision KIND, and turned where there are STAGES; zero where it is not `inside`."""
    x = tl.where(inside, x.to(KIND).to(tl.float32), 0.0)
    if STAGES > 0:
        signs = tl.load(signs_at + column % (1 << STAGES))
        x = (_turned(x * signs, STAGES, BLOCK) * inverse_root).to(KIND).to(tl.float32)
    return x


@triton.jit
def _largest(x):
    """Infinite where there is a number that is none, which the largest of numbers would pass over."""
    return tl.max(tl.where(x == x, tl.abs(x), float("inf")), axis=0)


@triton.jit
def _scale(largest, LARGEST: tl.constexpr):
    return tl.maximum(largest / LARGEST, _TINY)


@triton.jit
def _put(x, scale, place, inside):
    """Store `x` over `scale` in the 8-bit format of `place`."""
    out = place.dtype.element_ty
    steps = x * (1.0 / scale)
    if out == tl.int8:
        steps = (steps + _ROUNDING) - _ROUNDING
    tl.store(place, steps.to(out), mask=inside)


@triton.jit
def _put_scale(largest, place, LARGEST: tl.constexpr):
    tl.store(place, tl.where(largest == float("inf"), float("nan"), _scale(largest, LARGEST)))


@triton.jit
def _norm(
    x_at, branch_at, gate_at, multiply_at, add_at, sum_at, signs_at, values_at, scales_at, x_stride, branch_stride,
    width, eps, inverse_root, HAS_BRANCH: tl.constexpr, HAS_GATE: tl.constexpr, IS_MODULATED: tl.constexpr,
    LARGEST: tl.constexpr, STAGES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = normed_row(
        x_at, branch_at, gate_at, multiply_at, add_at, sum_at, row, column, inside, x_stride, branch_stride, width, eps,
        HAS_BRANCH, HAS_GATE, IS_MODULATED,
    )  # fmt: skip
    x = _ready(x, column, inside, signs_at, inverse_root, STAGES, x_at.dtype.element_ty, BLOCK)
    largest = _largest(x)
    _put(x, _scale(largest, LARGEST), values_at + row * width + column, inside)
    _put_scale(largest, scales_at + row, LARGEST)


@triton.jit
def _part(
    x_at, row, column, signs_at, x_stride, width, inverse_root, HAS_GELU: tl.constexpr, STAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    inside = column < width
    x = tl.load(x_at + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_GELU:
        # The tanh form: (1 + tanh y) / 2 is the logistic function of 2 y; the constant is 2 sqrt(2 / pi).
        doubled = 1.5957691216057308 * (x + 0.044715 * x * x * x)
        x = x * tl.sigmoid(tl.maximum(doubled, -88.0))  # beyond, its exponential is no float32
    return _ready(x, column, inside, signs_at, inverse_root, STAGES, x_at.dtype.element_ty, BLOCK)


@triton.jit
def _rows(
    x_at, signs_at, values_at, scales_at, x_stride, width, inverse_root, HAS_GELU: tl.constexpr,
    LARGEST: tl.constexpr, STAGES: tl.constexpr, BLOCK: tl.constexpr, IS_LONG: tl.constexpr,
):  # fmt: skip
    """A row that `IS_LONG` is more than a block and at most two: they take turns in what turning needs of memory."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    x = _part(x_at, row, column, signs_at, x_stride, width, inverse_root, HAS_GELU, STAGES, BLOCK)
    largest = _largest(x)
    place = values_at + row * width + column
    if IS_LONG:
        later = column + BLOCK
        y = _part(x_at, row, later, signs_at, x_stride, width, inverse_root, HAS_GELU, STAGES, BLOCK)
        largest = tl.maximum(largest, _largest(y))
        _put(y, _scale(largest, LARGEST), place + BLOCK, later < width)
    _put(x, _scale(largest, LARGEST), place, column < width)
    _put_scale(largest, scales_at + row, LARGEST)


def _empty(x: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(x.shape, dtype=scheme.dtype, device=x.device),
        torch.empty(len(x), 1, dtype=torch.float32, device=x.device),
    )


def _turning(x: Tensor, scheme: Scheme) -> tuple[Tensor, float, dict[str, float | int]]:
    """(signs, the matrix's factor, constants of a kernel for rows like those of `x`)."""
    block = block_width(x.shape[-1]) if scheme.is_rotated else 1
    constants = {"LARGEST": scheme.largest, "STAGES": block.bit_length() - 1}
    if constants["STAGES"] not in (0, 4, 6, 8):
        raise ValueError(f"rows {x.shape[-1]} wide do not fit this kernel")
    return rotation_signs(block, x.device), block**-0.5, constants


def _block(width: int) -> int:
    """Whole rows; not so few columns that a product of tensor cores would have too few rows."""
    return max(triton.next_power_of_2(width), _LEAST_BLOCK)


def norm(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, multiply: Tensor, add: Tensor, eps: float,
    *, modulated: bool, scheme: Scheme,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The layer norms of `layer_norm`: (sum with the branch if there is one, 8-bit tokens, scales)."""
    values, scales = _empty(x, scheme)
    added = None if branch is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    signs, inverse_root, constants = _turning(x, scheme)
    # Arguments that are switched off still need an address of some tensor.
    _norm[(len(x),)](
        x, x if branch is None else branch, multiply if gate is None else gate, multiply, add,
        x if added is None else added, signs, values, scales, x.stride(0), 0 if branch is None else branch.stride(0),
        x.shape[-1], eps, inverse_root, HAS_BRANCH=branch is not None, HAS_GATE=gate is not None,
        IS_MODULATED=modulated, BLOCK=_block(x.shape[-1]), num_warps=8, **constants,
    )  # fmt: skip
    return (values, scales) if added is None else (added, values, scales)


def rows(x: Tensor, *, gelu: bool, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Rows of `x`, after GELU where that is wanted: (8-bit tokens, scales)."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    values, scales = _empty(x, scheme)
    signs, inverse_root, constants = _turning(x, scheme)
    block = _block(x.shape[-1])
    is_long = block > _LONGEST_BLOCK
    _rows[(len(x),)](
        x, signs, values, scales, x.stride(0), x.shape[-1], inverse_root, HAS_GELU=gelu,
        BLOCK=block // 2 if is_long else block, IS_LONG=is_long, num_warps=8, **constants,
    )  # fmt: skip
    return values, scales
