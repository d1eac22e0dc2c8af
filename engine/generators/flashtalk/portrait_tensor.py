"""The portrait at the model's size: resized to cover it, cut at the centre, scaled to -1..1."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image


def cover_and_crop(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """`picture` uint8 [H, W, 3] resized until it covers the size in px, then its middle: uint8 [height, width, 3].

    Both sides are rounded up, also where rounding errors have pushed a whole number up. Pillow's BILINEAR takes every
    source pixel into account when it shrinks, other libraries' does not. Half a pixel of margin goes to the even side.
    """
    source_height, source_width = picture.shape[:2]
    scale = max(height / source_height, width / source_width)
    covering = (math.ceil(scale * source_width), math.ceil(scale * source_height))
    resized = np.asarray(Image.fromarray(picture).resize(covering, Image.Resampling.BILINEAR))
    top, left = round((resized.shape[0] - height) / 2), round((resized.shape[1] - width) / 2)
    return resized[top : top + height, left : left + width].copy()


def to_unit_range(picture: np.ndarray, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`picture` uint8 [H, W, 3] as a video of one frame, [1, 3, 1, H, W] in -1..1, on the CPU.

    Every operation is rounded to `dtype`, so that bfloat16 gives what a bfloat16 pipeline would see.
    """
    video = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, :, None].contiguous().to(dtype)
    return (video / 255 - 0.5) * 2
