"""The colour match in two passes over the frames, and finished frames as bytes in one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from engine.generators.flashtalk.color import match_frames, srgb_to_lab
from engine.generators.flashtalk.kernels.registry import FusedKernel


def to_bytes(frames: Tensor) -> Tensor:
    """Frames [1, 3, n, H, W] in [-1, 1] -> uint8 [n, H, W, 3]; cut off, not rounded, as the reference does."""
    unit = frames.squeeze(0).to(torch.promote_types(frames.dtype, torch.float32)) + 1.0
    levels = unit.div_(2.0).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous()


def _triton(name: str) -> Callable[[], Callable[..., Any]]:
    return lambda: getattr(import_module("engine.generators.flashtalk.kernels.triton_color_match"), name)


def _pictures(generator: torch.Generator, device: torch.device, dtype: torch.dtype, *size: int) -> Tensor:
    """Soft and noisy pictures [1, 3, *size] with a cast, a few of their pixels beyond the range."""
    noise = torch.rand(1, 3, *size, generator=generator, device=device) * 1.6 - 0.8
    cast = torch.rand(1, 3, size[0], 1, 1, generator=generator, device=device) * 0.6 - 0.3
    return (noise + cast).to(dtype)


def _match_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    samples = []
    for strength, layout in ((1.0, torch.channels_last_3d), (0.3, torch.contiguous_format)):
        portrait = _pictures(generator, device, torch.float64, 1, 24, 24).clamp(-1, 1)
        lab = srgb_to_lab((portrait + 1) / 2)
        wide = torch.promote_types(dtype, torch.float32)
        std, mean = (x.to(wide) for x in torch.std_mean(lab, dim=(-2, -1), correction=0, keepdim=True))
        frames = _pictures(generator, device, dtype, 3, 37, 41).clamp(-1, 1).contiguous(memory_format=layout)
        samples.append((frames, mean, std, strength))
    return samples


def _byte_samples(generator: torch.Generator, device: torch.device, dtype: torch.dtype):
    frames = _pictures(generator, device, dtype, 2, 37, 41)
    return [(frames,), (frames[:, :, 1:].contiguous(memory_format=torch.channels_last_3d),)]


COLOR_MATCH = FusedKernel(
    name="color_match", eager=match_frames, load=_triton("match_frames"), samples=_match_samples, is_compilable=False
)
TO_BYTES = FusedKernel(name="to_bytes", eager=to_bytes, load=_triton("to_bytes"), samples=_byte_samples)
