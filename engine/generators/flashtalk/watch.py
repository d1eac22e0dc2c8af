"""Notices when the picture has collapsed: what the decoder gives is compared with the portrait, chunk by chunk.

A stream feeds on its own frames, so a failure does not pass by itself. The bounds are wide: a talking face stays far
inside them, and they are there for noise, black, burnt-out or washed-out pictures and numbers that are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.generators.flashtalk.color import srgb_to_lab

_STRIDE = 4
"""Every fourth row and column says enough about colour."""
_DARK, _BURNT = -0.98, 0.98


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture looks like: Lab mean (3) and spread (3), sharpness (mean difference of neighbouring pixels, of
    2.0), shares of black and of saturated samples; `is_finite` is false where a number was none."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    sharpness: float
    black: float
    saturated: float
    is_finite: bool = True


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far a chunk may be from its portrait; factors apply both ways, shares are added."""

    lightness_shift: float = 35.0
    color_shift: float = 40.0
    spread_factor: float = 4.0
    sharpness_factor: float = 6.0
    share: float = 0.5


def measure(frames: Tensor) -> Tensor:
    """The look of `frames` [1, 3, n, H, W] in [-1, 1] as ten numbers on their device; nothing waits for them."""
    sparse = frames[..., ::_STRIDE, ::_STRIDE].float()
    lab = srgb_to_lab((sparse.clamp(-1, 1) + 1) / 2)
    across = (frames[..., ::_STRIDE, 1:] - frames[..., ::_STRIDE, :-1]).float().abs().mean()
    is_finite = torch.isfinite(frames).all().float()
    black = (sparse < _DARK).all(dim=1).float().mean()
    saturated = (sparse > _BURNT).float().mean()
    tail = torch.stack((across, black, saturated, is_finite))
    return torch.cat((lab.mean(dim=(0, 2, 3, 4)).float(), lab.std(dim=(0, 2, 3, 4)).float(), tail))


def look_of(numbers: Tensor) -> Look:
    """The numbers of `measure`, on the host."""
    values = numbers.tolist()
    return Look(
        mean=tuple(values[:3]),
        spread=tuple(values[3:6]),
        sharpness=values[6],
        black=values[7],
        saturated=values[8],
        is_finite=values[9] > 0.999 and all(value == value for value in values),
    )


def collapse_of(look: Look, portrait: Look, bounds: Bounds | None = None) -> str:
    """What is wrong with a chunk that looks like this, in a few words; empty if nothing is."""
    bounds = bounds or Bounds()
    if not look.is_finite:
        return "it held numbers that are none"
    if abs(look.mean[0] - portrait.mean[0]) > bounds.lightness_shift:
        return "its brightness was far from the portrait's"
    if max(abs(a - b) for a, b in zip(look.mean[1:], portrait.mean[1:], strict=True)) > bounds.color_shift:
        return "its colours were far from the portrait's"
    if look.black - portrait.black > bounds.share:
        return "it was black"
    if look.saturated - portrait.saturated > bounds.share:
        return "it was burnt out"
    if not _within(look.spread[0], portrait.spread[0], bounds.spread_factor):
        return "its contrast was far from the portrait's"
    if not _within(look.sharpness, portrait.sharpness, bounds.sharpness_factor):
        return "it was noise or a blur"
    return ""


def _within(value: float, reference: float, factor: float) -> bool:
    """A picture without any contrast says nothing, so the reference has a floor."""
    reference = max(reference, 1e-3)
    return reference / factor <= value <= reference * factor
