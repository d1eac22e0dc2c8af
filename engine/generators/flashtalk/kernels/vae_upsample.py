"""Nearest up-sampling to twice the size and the 3 x 3 convolution behind it, in one convolution on the small picture.

Every output pixel sees only 2 x 2 different input pixels, so nine products are four with weights added up beforehand,
and the large picture in between is never written. It is a transposed convolution of stride 2 with a 4 x 4 kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.kernels.registry import FusedKernel

_TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Which of three weights each of the four taps adds up. Output 2i sees w0 of pixel i - 1 and w1 + w2 of pixel i, output
2i + 1 w0 + w1 of pixel i and w2 of pixel i + 1; a tap k takes input i to output 2i - 1 + k."""


def upsample_convolve(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`frames` [T, C, H, W], `weight` [O, C, 3, 3] of any precision, `bias` [O] -> [T, O, 2H, 2W]; zeros outside."""
    large = F.interpolate(frames, scale_factor=2, mode="nearest")
    return F.conv2d(large, weight.to(frames.dtype), bias.to(frames.dtype), padding=1)


def merged_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The transposed convolution's weight [C, O, 4, 4] of `weight` [O, C, 3, 3], channels last.

    Added up in float32 at least, then rounded to `dtype`: give it the weights as they are published, because
    sums of rounded weights that are rounded again are less exact than the two steps apart.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    taps = torch.tensor(_TAPS, dtype=wide, device=weight.device)
    merged = torch.einsum("ak,bl,oikl->ioab", taps, taps, weight.to(wide))
    return merged.to(dtype).contiguous(memory_format=torch.channels_last)


def transposed(frames: Tensor, merged: Tensor, bias: Tensor | None, *, halo: int = 0) -> Tensor:
    """The same by `merged_weight`. `frames` have `halo` more rows above and below than belong to the result."""
    return F.conv_transpose2d(frames, merged, bias, stride=2, padding=(1 + 2 * halo, 1))


def _merged(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return transposed(frames, merged_weight(weight, frames.dtype), bias.to(frames.dtype))


def _samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    frames = drawn(4, 192, 5, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    return [(frames, drawn(96, 192, 3, 3) * (9 * 192) ** -0.5, drawn(96))]


UPSAMPLE = FusedKernel(
    name="vae_upsample", eager=upsample_convolve, load=lambda: _merged, samples=_samples, is_compilable=False
)
