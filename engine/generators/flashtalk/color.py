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


PictureMean = Callable[[Tensor], Tensor]
"""Mean over rows and columns of whole pictures, kept as axes of length 1, from the rows [..., n, W] that are here."""


class ColorMatch:
    """Matches frames to one portrait, whose statistics are taken once.

    Holds two small tensors on the portrait's device and no other state: any thread, any number of streams.
    """

    def __init__(self, portrait: Tensor) -> None:
        """Take mean and spread of `portrait` [1, 3, 1, H, W], sRGB in [-1, 1]."""
        lab = srgb_to_lab(_unit_range(portrait))
        self._mean, self._std = _mean_and_std(lab)

    def apply(self, frames: Tensor, strength: float = 1.0, picture_mean: PictureMean | None = None) -> Tensor:
        """Match `frames` [1, 3, T, H, W] in [-1, 1]; each frame on its own, so T may be any part of a chunk.

        Where `frames` are only some rows of the pictures, `picture_mean` takes means over all of them.
        `strength` blends from the frames as they are (0, nothing is computed) to a full match (1). The result is
        float32, or float64 for such frames, on the frames' device.
        """
        if strength == 0:
            return frames.to(_compute_dtype(frames))
        rgb = _unit_range(frames)
        lab = srgb_to_lab(rgb)
        mean, std = _mean_and_std(lab) if picture_mean is None else _mean_and_std_by(lab, picture_mean)
        std = torch.where(std < STD_FLOOR, torch.ones_like(std), std)
        matched = lab_to_srgb((lab - mean) * (self._std / std) + self._mean)
        return torch.lerp(rgb, matched, strength) * 2 - 1


def srgb_to_lab(rgb: Tensor) -> Tensor:
    """Lab of `rgb` [B, 3, ...] in [0, 1]: L in 0 to 100, a and b about -128 to 127."""
    linear = torch.where(rgb > SRGB_KNEE, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    rows = zip(_matrix_product(SRGB_TO_XYZ, linear), WHITE_XYZ, strict=True)
    # Channels last up to the cube root: vectorised powers round by position, which plain grey frames show (see below).
    xyz = torch.stack([row / white for row, white in rows], dim=-1).clamp(XYZ_FLOOR, 1.0)
    fx, fy, fz = torch.where(xyz > EPSILON, xyz ** (1 / 3), (KAPPA * xyz + 16) / 116).unbind(-1)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=1)


def lab_to_srgb(lab: Tensor) -> Tensor:
    """The colour [B, 3, ...] in [0, 1] of `lab`; what a screen cannot show is cut off per channel."""
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    x, z = (_from_cube_root(f) for f in (a / 500 + fy, fy - b / 200))
    y = torch.where(lightness > KAPPA * EPSILON, fy**3, lightness / KAPPA)
    xyz = torch.stack([plane * white for plane, white in zip((x, y, z), WHITE_XYZ, strict=True)], dim=1)
    linear = torch.stack(_matrix_product(XYZ_TO_SRGB, xyz), dim=1)
    # Out of reach colours are below zero, whose power is NaN and would spoil the gradient of the other branch too.
    curved = 1.055 * linear.clamp(min=LINEAR_KNEE) ** (1 / 2.4) - 0.055
    return torch.where(linear > LINEAR_KNEE, curved, linear * 12.92).clamp(0.0, 1.0)


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


def _mean_and_std_by(lab: Tensor, picture_mean: PictureMean) -> tuple[Tensor, Tensor]:
    mean = picture_mean(lab)
    return mean, picture_mean((lab - mean).square()).sqrt()


def _unit_range(frames: Tensor) -> Tensor:
    return (frames.to(_compute_dtype(frames)) + 1) / 2


def _compute_dtype(frames: Tensor) -> torch.dtype:
    return torch.promote_types(frames.dtype, torch.float32)
