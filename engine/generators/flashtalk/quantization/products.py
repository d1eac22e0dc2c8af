"""Products of 8-bit tokens and weights: one that defines the numbers, and faster ones for what a device can do.

A product takes tokens [rows, in] with scales [rows, 1], a weight [out, in] with scales [out], a bias [out] or None, and
the dtype of the result [rows, out].
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.generators.flashtalk.quantization.scheme import FP8, Scheme, quantize_tokens, quantize_weight

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 2048
"""Rows whose sums are scaled together: at 13824 outputs 113 MB of 32-bit sums instead of 0.7 GB."""
_LEAST_ROWS = 32
"""The integer product of CUDA wants more than 16 rows."""
_FP8_CAPABILITY, _INT8_CAPABILITY = (8, 9), (8, 0)
_TOLERANCE = 2e-2
"""Relative to the largest result: a wrong layout, scale or missing bias is off by its whole size, fast accumulation on
Hopper and a last rounding to bfloat16 by less than a hundredth."""

_scaled_mm = torch._scaled_mm  # type: ignore[reportPrivateImportUsage] - no public name before torch 2.10
_int_mm = torch._int_mm  # type: ignore[reportPrivateImportUsage]

Compute = Callable[[Tensor, Tensor, Tensor, Tensor, "Tensor | None", torch.dtype], Tensor]


@dataclass(frozen=True, kw_only=True)
class Product:
    """`is_native` where the device multiplies 8-bit numbers itself."""

    name: str
    compute: Compute
    is_native: bool


def eager(x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Defines the result: sums of exact products in float64, scaled, biased, then rounded once."""
    return _finished(x.double() @ w.double().t(), x_scales, w_scales, bias, dtype)


def widened(
    x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """In a wider floating format, which holds both schemes' numbers exactly: for devices without 8-bit products."""
    wide = dtype if dtype in (torch.bfloat16, torch.float32, torch.float64) else torch.float32
    weight = w.to(wide).t()
    return _by_rows(lambda rows: x[rows].to(wide) @ weight, x_scales, w_scales, bias, dtype)


def scaled(x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """FP8 with the scales applied inside the kernel (Hopper by CUTLASS, others where cuBLASLt has it)."""
    return _scaled_mm(
        x, w.t(), scale_a=x_scales, scale_b=w_scales.unsqueeze(0), bias=bias, out_dtype=dtype, use_fast_accum=True
    )


def scaled_after(
    x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """FP8 with unit scales in the kernel and the true ones afterwards: Blackwell's GeForce cards have no row-wise
    kernel (pytorch issue 192707)."""
    one = torch.ones((), dtype=torch.float32, device=x.device)

    def sums(rows: slice) -> Tensor:
        return _scaled_mm(x[rows], w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

    return _by_rows(sums, x_scales, w_scales, bias, dtype)


def integer(
    x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """INT8 with exact 32-bit sums."""

    def sums(rows: slice) -> Tensor:
        part = x[rows]
        if len(part) >= _LEAST_ROWS:
            return _int_mm(part, w.t())
        padded = part.new_zeros(_LEAST_ROWS, part.shape[1])
        padded[: len(part)] = part
        return _int_mm(padded, w.t())[: len(part)]

    return _by_rows(sums, x_scales, w_scales, bias, dtype)


EAGER = Product(name="eager", compute=eager, is_native=False)
WIDENED = Product(name="widened", compute=widened, is_native=False)
SCALED = Product(name="scaled_mm", compute=scaled, is_native=True)
SCALED_AFTER = Product(name="scaled_mm, scaled after", compute=scaled_after, is_native=True)
INTEGER = Product(name="int_mm", compute=integer, is_native=True)


def choose_product(scheme: Scheme, device: torch.device, dtype: torch.dtype) -> Product:
    """The fastest product whose results on `device` agree with the eager one; tried on a small example.

    One that fails or differs is named in the log, and the next one is tried; the last one needs only an ordinary matrix
    product.
    """
    for product in candidates(scheme, device, dtype):
        problem = problem_of(product, scheme, device, dtype)
        if problem is None:
            return product
        logger.warning("the %s product of %s does not work on %s: %s", scheme.name, product.name, device, problem)
    return WIDENED


def candidates(scheme: Scheme, device: torch.device, dtype: torch.dtype) -> tuple[Product, ...]:
    """What might work there, the fastest first."""
    if device.type == "cpu":
        # Exact sums cost nothing extra there; FP8 products of a CPU differ from version to version.
        return (WIDENED,) if scheme is FP8 else (INTEGER, WIDENED)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if scheme is FP8:
        native = (SCALED, SCALED_AFTER) if dtype == torch.bfloat16 else (SCALED_AFTER,)
        return (*native, WIDENED) if capability >= _FP8_CAPABILITY else (WIDENED,)
    return (INTEGER, WIDENED) if capability >= _INT8_CAPABILITY else (WIDENED,)


@torch.no_grad()
def problem_of(product: Product, scheme: Scheme, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with `product` on `device`, by a product of 320 x 512 x 384 with uneven rows; None if nothing."""
    random = torch.Generator().manual_seed(0)
    x, w, bias = (torch.randn(*shape, generator=random) for shape in ((320, 512), (384, 512), (384,)))
    x, w = x * torch.logspace(-2, 2, len(x)).unsqueeze(1), w * torch.logspace(-1, 1, len(w)).unsqueeze(1)
    tokens, weight = quantize_tokens(x.to(dtype), scheme), quantize_weight(w, scheme)
    parts = (*tokens, *weight, bias.to(dtype))
    expected = eager(*parts, torch.float32)
    try:
        there = [part.to(device) for part in parts]
        found = product.compute(there[0], there[1], there[2], there[3], there[4], dtype).float().cpu()
    except (RuntimeError, AttributeError, NotImplementedError, ValueError) as error:
        return str(error).split("\n")[0]
    # Row by row: a small row's error must not hide behind a large one.
    error = ((found - expected).abs().amax(1) / expected.abs().amax(1)).max().item()
    return None if error <= _TOLERANCE else f"its results differ by {error:.3g} of the largest"


def _by_rows(
    sums: Callable[[slice], Tensor], x_scales: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    if len(x_scales) <= _ROWS_AT_ONCE:
        return _finished(sums(slice(None)), x_scales, w_scales, bias, dtype)
    out = torch.empty(len(x_scales), len(w_scales), dtype=dtype, device=x_scales.device)
    for start in range(0, len(x_scales), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        out[rows] = _finished(sums(rows), x_scales[rows], w_scales, bias, dtype)
    return out


def _finished(sums: Tensor, x_scales: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """In the width of the sums, float32 at least."""
    wide = sums if sums.dtype == torch.float64 else sums.float()
    result = (wide * x_scales).mul_(w_scales)
    return (result if bias is None else result.add_(bias)).to(dtype)
