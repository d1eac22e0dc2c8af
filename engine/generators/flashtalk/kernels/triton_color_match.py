# pyright: basic, reportMissingImports=false, reportCallIssue=false
"""Triton forms of `color_match`: one pass for the statistics, one that matches; Lab is never written to memory.

Every program takes some pixels of one frame. Frames may have their channels first or last, and be some of the frames
or rows of larger ones, as long as their pixels lie in equal steps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.generators.flashtalk import color
from engine.generators.flashtalk.color import Average
from engine.generators.flashtalk.kernels import color_match

_BLOCK = 1024


@triton.jit
def _power(x, exponent):
    return tl.exp2(tl.log2(x) * exponent)


@triton.jit
def _linear(v):
    return tl.where(v > 0.04045, _power((tl.maximum(v, 0.04045) + 0.055) / 1.055, 2.4), v / 12.92)


@triton.jit
def _root(v):
    v = tl.minimum(tl.maximum(v, 1e-8), 1.0)
    return tl.where(v > 0.008856, _power(v, 0.3333333333333333), (903.3 * v + 16.0) / 116.0)


@triton.jit
def _to_lab(r, g, b):
    r, g, b = _linear(r), _linear(g), _linear(b)
    x = _root((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047)
    y = _root(0.2126729 * r + 0.7151522 * g + 0.0721750 * b)
    z = _root((0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883)
    return 116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)


@triton.jit
def _cube(f):
    cubed = f * f * f
    return tl.where(cubed > 0.008856, cubed, (116.0 * f - 16.0) / 903.3)


@triton.jit
def _curved(v):
    v = tl.where(v > 0.0031308, 1.055 * _power(tl.maximum(v, 0.0031308), 0.4166666666666667) - 0.055, 12.92 * v)
    return tl.minimum(tl.maximum(v, 0.0), 1.0)


@triton.jit
def _read(at, offset, inside):
    return (tl.load(at + offset, mask=inside, other=0.0).to(tl.float32) + 1.0) / 2.0


@triton.jit
def _moments(x, inside, count):
    mean = tl.sum(tl.where(inside, x, 0.0), axis=0) / count
    away = tl.where(inside, x - mean, 0.0)
    return mean, tl.sum(away * away, axis=0)


@triton.jit
def _statistics(
    frames_at, parts_at, channel, frame, step, pixels, BLOCK: tl.constexpr
):  # fmt: skip
    number, t = tl.program_id(0), tl.program_id(1)
    pixel = number.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    at = t.to(tl.int64) * frame + pixel * step
    lightness, a, b = _to_lab(
        _read(frames_at, at, inside), _read(frames_at, at + channel, inside), _read(frames_at, at + 2 * channel, inside)
    )
    count = tl.minimum(pixels - number * BLOCK, BLOCK).to(tl.float32)
    part = parts_at + (t * tl.num_programs(0) + number) * 6
    mean, spread = _moments(lightness, inside, count)
    tl.store(part, mean)
    tl.store(part + 3, spread)
    mean, spread = _moments(a, inside, count)
    tl.store(part + 1, mean)
    tl.store(part + 4, spread)
    mean, spread = _moments(b, inside, count)
    tl.store(part + 2, mean)
    tl.store(part + 5, spread)


@triton.jit
def _moved(x, table, place):
    return (x - tl.load(table + place)) * tl.load(table + 3 + place) + tl.load(table + 6 + place)


@triton.jit
def _write(at, offset, matched, original, strength, inside):
    blended = matched * strength + original * (1.0 - strength)
    tl.store(at + offset, blended * 2.0 - 1.0, mask=inside)


@triton.jit
def _match(
    frames_at, table_at, out_at, strength, channel, frame, step, out_channel, out_frame, out_step, pixels,
    BLOCK: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(1)
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    at = t.to(tl.int64) * frame + pixel * step
    red = _read(frames_at, at, inside)
    green = _read(frames_at, at + channel, inside)
    blue = _read(frames_at, at + 2 * channel, inside)
    lightness, a, b = _to_lab(red, green, blue)
    table = table_at + t * 9
    lightness, a, b = _moved(lightness, table, 0), _moved(a, table, 1), _moved(b, table, 2)
    fy = (lightness + 16.0) / 116.0
    x = _cube(a / 500.0 + fy) * 0.95047
    y = tl.where(lightness > 7.9996248, fy * fy * fy, lightness / 903.3)
    z = _cube(fy - b / 200.0) * 1.08883
    to = t.to(tl.int64) * out_frame + pixel * out_step
    _write(out_at, to, _curved(3.2404542 * x - 1.5371385 * y - 0.4985314 * z), red, strength, inside)
    _write(out_at, to + out_channel, _curved(-0.9692660 * x + 1.8760108 * y + 0.0415560 * z), green, strength, inside)
    _write(out_at, to + 2 * out_channel, _curved(0.0556434 * x - 0.2040259 * y + 1.0572252 * z), blue, strength, inside)


@triton.jit
def _bytes(frames_at, out_at, channel, frame, step, pixels, BLOCK: tl.constexpr):
    t = tl.program_id(1)
    sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < 3 * pixels
    at = t.to(tl.int64) * frame + (sample // 3) * step + (sample % 3) * channel
    unit = tl.minimum(tl.maximum(_read(frames_at, at, inside), 0.0), 1.0)
    tl.store(out_at + t.to(tl.int64) * 3 * pixels + sample, (unit * 255.0).to(tl.uint8), mask=inside)


def match_frames(frames: Tensor, mean: Tensor, std: Tensor, strength: float, average: Average | None = None) -> Tensor:
    """See `color.match_frames`."""
    steps = _steps(frames)
    if steps is None or frames.dtype == torch.float64:
        return color.match_frames(frames, mean, std, strength, average)
    own_mean, own_std = color.of_whole_pictures(*_statistics_of(frames, steps), average)
    rows = (own_mean, color.gain(own_std, std), mean.expand_as(own_mean))
    table = torch.cat([row.reshape(3, -1).t() for row in rows], dim=1).contiguous()  # [T, 9]
    out = torch.empty_like(frames, dtype=torch.float32)
    _match[_grid(frames, 1)](
        frames, table, out, float(strength), *steps, *_some_steps(out), frames.shape[3] * frames.shape[4],
        BLOCK=_BLOCK, num_warps=8,
    )  # fmt: skip
    return out


def to_bytes(frames: Tensor) -> Tensor:
    """See `color_match.to_bytes`."""
    steps = _steps(frames)
    if steps is None or frames.dtype == torch.float64:
        return color_match.to_bytes(frames)
    _, _, count, rows, columns = frames.shape
    out = torch.empty((count, rows, columns, 3), dtype=torch.uint8, device=frames.device)
    _bytes[_grid(frames, 3)](frames, out, *steps, rows * columns, BLOCK=_BLOCK, num_warps=8)
    return out


def _statistics_of(frames: Tensor, steps: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Mean and spread [1, 3, T, 1, 1], put together from those of the programs: pairwise, so that nothing cancels."""
    grid, pixels = _grid(frames, 1), frames.shape[3] * frames.shape[4]
    parts = torch.empty((grid[1], grid[0], 6), dtype=torch.float32, device=frames.device)
    _statistics[grid](frames, parts, *steps, pixels, BLOCK=_BLOCK, num_warps=8)
    means, spreads = parts.split(3, dim=-1)
    share = torch.full((grid[0], 1), _BLOCK / pixels, device=frames.device)
    share[-1] = (pixels - (grid[0] - 1) * _BLOCK) / pixels
    mean = (means * share).sum(dim=1, keepdim=True)
    variance = spreads.sum(dim=1, keepdim=True) / pixels + ((means - mean).square() * share).sum(dim=1, keepdim=True)
    return tuple(x.permute(2, 0, 1).reshape(1, 3, -1, 1, 1) for x in (mean, variance.sqrt()))  # type: ignore[return-value]


def _grid(frames: Tensor, samples: int) -> tuple[int, int]:
    return triton.cdiv(samples * frames.shape[3] * frames.shape[4], _BLOCK), frames.shape[2]


def _steps(frames: Tensor) -> tuple[int, int, int] | None:
    """Elements from a channel, a frame and a pixel to the next; None where pixels do not lie in equal steps."""
    _, channel, frame, row, step = frames.stride()
    return (channel, frame, step) if row == frames.shape[4] * step or frames.shape[3] == 1 else None


def _some_steps(frames: Tensor) -> tuple[int, int, int]:
    steps = _steps(frames)
    assert steps is not None
    return steps
