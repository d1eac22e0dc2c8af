"""The two 8-bit schemes: how numbers become 8 bits, and with which scales.

Both are symmetric, with one scale to a token (made anew for every input) and one to an output channel (made once).
FP8 is e4m3: the error of each number is relative to itself, so outliers do no harm. INT8 has one step for a whole
token, which a single large channel would coarsen; its inputs are therefore rotated first, in blocks, by Hadamard
matrices with random signs, which spreads an outlier over its block, and the weights alike, so that the product stays
what it was (the idea is QuaRot's, arXiv 2404.00456).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_ROWS_AT_ONCE = 2048
"""Rows that are quantised together: what is wide in between stays small beside the result."""
_LARGEST_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """`largest` is the largest magnitude of `dtype`; `version` changes with anything that changes the numbers."""

    name: str
    dtype: torch.dtype
    largest: float
    is_rotated: bool
    version: int = 1

    @property
    def key(self) -> str:
        """Names the scheme and its version in file names."""
        return f"{self.name}-v{self.version}"


FP8 = Scheme(name="fp8", dtype=torch.float8_e4m3fn, largest=448.0, is_rotated=False)
INT8 = Scheme(name="int8", dtype=torch.int8, largest=127.0, is_rotated=True)
SCHEMES = {scheme.name: scheme for scheme in (FP8, INT8)}


def quantize_tokens(x: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Tokens [rows, width] -> (8-bit [rows, width], scales [rows, 1] in float32) with x = 8-bit times scale; rotated
    where the scheme says so, in the precision of `x`. Numbers that are none give a scale that is none."""
    whole = torch.empty(x.shape, dtype=scheme.dtype, device=x.device)
    scales = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scales[rows] = _quantize_rows(rotated(x[rows]) if scheme.is_rotated else x[rows], whole[rows])
    return whole, scales


def quantize_weight(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """A weight [out, in] -> (8-bit [out, in], scales [out] in float32), where it is; rotated in float32, rounded
    once."""
    parts = [quantize_tokens(rows.float(), scheme) for rows in weight.split(_ROWS_AT_ONCE)]
    if len(parts) == 1:
        return parts[0][0], parts[0][1].squeeze(1)
    quantized = torch.cat([part.view(torch.uint8) for part, _ in parts]).view(scheme.dtype)
    return quantized, torch.cat([scales for _, scales in parts]).squeeze(1)


def dequantize_weight(quantized: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """What such a weight stands for, [out, in] in float32."""
    wide = quantized.float() * scales.unsqueeze(1)
    if not scheme.is_rotated:
        return wide
    matrix = _rotation(block_width(wide.shape[-1]), wide.dtype, wide.device)
    return (wide.unflatten(-1, (-1, len(matrix))) @ matrix.t()).flatten(-2)


def rotated(x: Tensor) -> Tensor:
    """Blocks of the last axis times an orthonormal matrix; in the precision of `x`."""
    matrix = _rotation(block_width(x.shape[-1]), x.dtype, x.device)
    return (x.unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2)


def block_width(width: int) -> int:
    """The largest power of 4 that divides `width`, up to 256: the matrix's entries are then exact in any format."""
    block = 1
    while block < _LARGEST_BLOCK and width % (4 * block) == 0:
        block *= 4
    return block


@lru_cache(maxsize=16)
def rotation_signs(size: int, device: torch.device) -> Tensor:
    """The signs [size] of a rotation of blocks that wide, in float32: turning is to multiply by them, then by
    Sylvester's matrix, then by the inverse root of the size."""
    with torch.inference_mode(False):
        return torch.tensor(_signs(size), device=device)


def _signs(size: int) -> list[float]:
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(b"standin").digest())
    return [1.0 if bit == "1" else -1.0 for bit in bits[:size]]


@lru_cache(maxsize=16)
def _rotation(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Signs times Sylvester's Hadamard matrix ([[H, H], [H, -H]], divided by the square root of its size).

    Without the signs a common offset of all channels, such as GELU leaves, would gather in the first of a block.
    """
    with torch.inference_mode(False):  # made once, used under either mode
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
        return (torch.tensor(_signs(size)).unsqueeze(1) * matrix / size**0.5).to(device, dtype)


def _quantize_rows(x: Tensor, out: Tensor) -> Tensor:
    """Fills `out` and gives the scales. Written so that few wide copies are read and written in between."""
    largest_step = _LARGEST[out.dtype]
    low, high = torch.aminmax(x, dim=-1, keepdim=True)
    largest = torch.maximum(high, -low).float()
    # Rows of zeros keep a scale that can be divided by.
    scales = (largest / largest_step).clamp_(min=torch.finfo(torch.float32).tiny)
    # At most a few roundings of float32 above the largest, which becomes the largest in both formats.
    steps = x / scales
    out.copy_(steps if out.is_floating_point() else steps.round_())
    return scales


_LARGEST = {scheme.dtype: scheme.largest for scheme in SCHEMES.values()}
