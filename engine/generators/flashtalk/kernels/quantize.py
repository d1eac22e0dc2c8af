"""Tokens made 8-bit by what makes them: the layer norms, GELU, or their being read, with a scale for each.

Each of these kernels is another one followed by `quantize_tokens`, with all roundings of the two. Without it the tokens
are written in 16 bits, read to find the largest of each, and read again to be divided; INT8 turns them in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.kernels.layer_norm import ADD_GATED_NORM, ADD_NORM, ADD_NORM_MODULATE, NORM_MODULATE
from engine.generators.flashtalk.kernels.registry import FusedKernel, Samples, tensors_of
from engine.generators.flashtalk.kernels.samples import tokens
from engine.generators.flashtalk.quantization.scheme import SCHEMES, Scheme, quantize_tokens, rotated

HIDDEN = 13824
"""Width of what GELU sees."""


def gelu(x: Tensor) -> Tensor:
    """Its tanh form."""
    return F.gelu(x, approximate="tanh")


def _rows(x: Tensor) -> Tensor:
    return x


def _quantized(function: Callable[..., Any], scheme: Scheme, *arguments: Any) -> tuple[Tensor, ...]:
    """`function`'s result, its last tensor [tokens, width] as (8-bit tokens, scales [tokens, 1])."""
    *before, x = tensors_of(function(*arguments))
    return *before, *quantize_tokens(x, scheme)


def _exact(function: Callable[..., Any], scheme: Scheme, *arguments: Any) -> tuple[Tensor, ...]:
    """What `_quantized` stands for: (..., tokens that are turned and not rounded, scales)."""
    *before, x = tensors_of(function(*arguments))
    x = rotated(x) if scheme.is_rotated else x
    return *before, x, x.abs().amax(-1, keepdim=True) / scheme.largest


def _values(result: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    *before, values, scales = result
    return *before, values.double() * scales.double(), scales


def _load(name: str, scheme: Scheme) -> Callable[..., Any]:
    triton = import_module("engine.generators.flashtalk.kernels.triton_quantize")
    norm = partial(triton.norm, scheme=scheme)
    return {
        "norm_modulate": lambda x, shift, scale, eps: norm(x, None, None, scale, shift, eps, modulated=True),
        "add_norm_modulate": lambda x, branch, shift, scale, eps: norm(
            x, branch, None, scale, shift, eps, modulated=True
        ),
        "add_norm": lambda x, branch, *pair_eps: norm(x, branch, None, *pair_eps, modulated=False),
        "add_gated_norm": lambda x, branch, gate, *pair_eps: norm(x, branch, gate, *pair_eps, modulated=False),
        "gelu": partial(triton.rows, gelu=True, scheme=scheme),
        "rows": partial(triton.rows, gelu=False, scheme=scheme),
    }[name]


def _kernel(name: str, function: Callable[..., Any], samples: Samples, scheme: Scheme) -> FusedKernel:
    return FusedKernel(
        name=f"{name}_{scheme.name}",
        eager=partial(_quantized, function, scheme),
        load=partial(_load, name, scheme),
        samples=samples,
        # Not tried: the twin goes through its rows in slices, each of which would be compiled.
        is_compilable=False,
        exact=partial(_exact, function, scheme),
        values=_values,
    )


def _row_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    x = tokens(generator, device, dtype, 19)
    return [(x,), (x[5:],)]


def _gelu_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    # Most of it where GELU bends, some far out; the largest of a row at its beginning or at its end.
    x = 0.3 * tokens(generator, device, dtype, 4, HIDDEN)
    return [(torch.cat((x, x[:3].flip(-1))),)]


def _kernels(scheme: Scheme) -> Mapping[str, FusedKernel]:
    norms = (NORM_MODULATE, ADD_GATED_NORM, ADD_NORM, ADD_NORM_MODULATE)
    made = {kernel.name: _kernel(kernel.name, kernel.eager, kernel.samples, scheme) for kernel in norms}
    made["gelu"] = _kernel("gelu", gelu, _gelu_samples, scheme)
    made["rows"] = _kernel("rows", _rows, _row_samples, scheme)
    return made


QUANTIZING = {name: _kernels(scheme) for name, scheme in SCHEMES.items()}
"""By scheme, then by the name of the kernel that makes the same tokens in their own precision, or "gelu", or "rows"."""
