"""Colour match: every frame gets the portrait's mean and spread in CIE Lab, so that no drift builds up over chunks.

All arithmetic is float32 (float64 if the frames are). sRGB transfer: IEC 61966-2-1; Lab: CIE 15, with the rounded
constants 0.008856 and 903.3 and the white of D65. Channels are axis 1 everywhere: [1, 3, T, H, W].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SRGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
XYZ_TO_SRGB = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
WHITE_XYZ = (0.95047, 1.0, 1.08883)
EPSILON = 0.008856
"""Above this, relative to white, lightness is a cube root; below it a line."""
KAPPA = 903.3
"""Slope of that line."""
SRGB_KNEE = 0.04045
LINEAR_KNEE = 0.0031308
"""The two sides of the place where sRGB turns from a line into a power."""
XYZ_FLOOR = 1e-8
STD_FLOOR = 1e-8
"""A channel that varies less than this in a frame is only moved, not stretched."""


Average = Callable[[Tensor], Tensor]
"""Of the numbers that every rank found on its rows the mean over whole pictures; each rank counts by its rows."""


class ColorMatch:
    """Matches frames to one portrait, whose statistics are taken once.

    Holds two small tensors on the portrait's device and no other state: any thread, any number of streams.
    """

    def __init__(self, portrait: Tensor, match: Callable[..., Tensor] | None = None) -> None:
        """Take mean and spread of `portrait` [1, 3, 1, H, W], sRGB in [-1, 1]. `match`: a fused `match_frames`."""
        self._mean, self._std = _mean_and_std(srgb_to_lab(_unit_range(portrait)))
        self._match = match or match_frames

    def apply(self, frames: Tensor, strength: float = 1.0, average: Average | None = None) -> Tensor:
        """Match `frames` [1, 3, T, H, W] in [-1, 1]; each frame on its own, so T may be any part of a chunk.

        Where `frames` are only some rows of the pictures, `average` makes of statistics on them those of all rows.
        `strength` blends from the frames as they are (0, nothing is computed) to a full match (1). The result is
        float32, or float64 for such frames, on the frames' device. Nothing waits for the device.
        """
        if strength == 0:
            return frames.to(_compute_dtype(frames))
        return self._match(frames, self._mean, self._std, strength, average)


def match_frames(frames: Tensor, mean: Tensor, std: Tensor, strength: float, average: Average | None = None) -> Tensor:
    """`frames` [1, 3, T, H, W] in [-1, 1] with the Lab `mean` and `std` [1, 3, 1, 1, 1]; see `ColorMatch.apply`."""
    rgb = _unit_range(frames)
    lab = srgb_to_lab(rgb)
    own_mean, own_std = of_whole_pictures(*_mean_and_std(lab), average)
    matched = lab_to_srgb((lab - own_mean).mul_(gain(own_std, std)).add_(mean))
    blended = matched if strength == 1 else torch.lerp(rgb, matched, strength)
    return blended.mul_(2).sub_(1)


def of_whole_pictures(mean: Tensor, std: Tensor, average: Average | None) -> tuple[Tensor, Tensor]:
    """Mean and spread of pictures of whose rows each rank has some: two exchanges of three numbers for each frame."""
    if average is None:
        return mean, std
    whole = average(mean)
    return whole, average(std.square() + (mean - whole).square()).sqrt()


def gain(own: Tensor, wanted: Tensor) -> Tensor:
    """What makes the spread `wanted` of `own`; a channel that hardly varies is only moved."""
    return wanted / torch.where(own < STD_FLOOR, torch.ones_like(own), own)


def srgb_to_lab(rgb: Tensor) -> Tensor:
    """Lab of `rgb` [B, 3, ...] in [0, 1]: L in 0 to 100, a and b about -128 to 127."""
    linear = torch.where(rgb > SRGB_KNEE, (rgb + 0.055).div_(1.055).pow_(2.4), rgb / 12.92)
    rows = zip(_matrix_product(SRGB_TO_XYZ, linear), WHITE_XYZ, strict=True)
    # Channels last up to the cube root: vectorised powers round by position, which plain grey frames show (see below).
    xyz = torch.stack([row / white for row, white in rows], dim=-1).clamp_(XYZ_FLOOR, 1.0)
    fx, fy, fz = torch.where(xyz > EPSILON, xyz ** (1 / 3), (KAPPA * xyz).add_(16).div_(116)).unbind(-1)
    return torch.stack(((116 * fy).sub_(16), (fx - fy).mul_(500), (fy - fz).mul_(200)), dim=1)


def lab_to_srgb(lab: Tensor) -> Tensor:
    """The colour [B, 3, ...] in [0, 1] of `lab`; what a screen cannot show is cut off per channel."""
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    x, z = (_from_cube_root(f) for f in (a / 500 + fy, fy - b / 200))
    y = torch.where(lightness > KAPPA * EPSILON, fy**3, lightness / KAPPA)
    xyz = torch.stack([plane * white for plane, white in zip((x, y, z), WHITE_XYZ, strict=True)], dim=1)
    linear = torch.stack(_matrix_product(XYZ_TO_SRGB, xyz), dim=1)
    # Out of reach colours are below zero, whose power is NaN.
    curved = linear.clamp(min=LINEAR_KNEE).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return torch.where(linear > LINEAR_KNEE, curved, linear * 12.92).clamp_(0.0, 1.0)


def _from_cube_root(f: Tensor) -> Tensor:
    cube = f**3
    return torch.where(cube > EPSILON, cube, (116 * f - 16) / KAPPA)


def _matrix_product(matrix: tuple[tuple[float, ...], ...], planes: Tensor) -> list[Tensor]:
    """Rows of `matrix` times the channels of `planes`, in full precision whatever TF32 setting is on.

    `alpha` makes each step one fused multiply-add, which is how a matrix product rounds. That shows in frames that
    are grey throughout: their a and b are nothing but rounding, which the match stretches to the portrait's spread.
    """
    first, second, third = planes.unbind(1)
    return [torch.add(torch.add(first * a, second, alpha=b), third, alpha=c) for a, b, c in matrix]


def _mean_and_std(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Per frame and channel over rows and columns, [1, 3, T, 1, 1] each; the spread divides by N."""
    std, mean = torch.std_mean(lab, dim=(-2, -1), correction=0, keepdim=True)
    return mean, std


def _unit_range(frames: Tensor) -> Tensor:
    return (frames.to(_compute_dtype(frames)) + 1).div_(2)


def _compute_dtype(frames: Tensor) -> torch.dtype:
    return torch.promote_types(frames.dtype, torch.float32)
