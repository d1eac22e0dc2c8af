"""Numbered pictures: colour bars with the number of the picture in blocks below them, drawn and read back.

Bars and blocks are large and lie away from borders, so that conversions to half-resolution chroma
keep them.
"""

from __future__ import annotations

import numpy as np

BITS = 16
BARS = np.array(
    [
        *[(235, 235, 235), (200, 200, 40), (40, 190, 190), (40, 180, 40)],
        *[(190, 50, 190), (190, 40, 40), (40, 50, 200), (20, 20, 20)],
    ],
    np.uint8,
)
"""RGB, inside the range that limited YUV can hold."""


def draw(number: int, width: int = 640, height: int = 360) -> np.ndarray:
    """RGB uint8 (height, width, 3): bars in the upper half, then `number` as 16 blocks from the highest bit, white for
    one, and below each block its opposite, by which a picture torn between two numbers is known."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2] = BARS[np.arange(width) * len(BARS) // width]
    ones = np.array([number >> (BITS - 1 - bit) & 1 for bit in range(BITS)], np.uint8)
    row = (ones * 215 + 20)[np.arange(width) * BITS // width, None]
    picture[height // 2 : height * 3 // 4] = row
    picture[height * 3 // 4 :] = 255 - row
    return picture


def read_number(luma: np.ndarray) -> int | None:
    """The number in a picture's luma (height, width); None if the blocks contradict their opposites."""
    height, width = luma.shape
    columns = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    upper = luma[height * 5 // 8, columns] > 127
    lower = luma[height * 7 // 8, columns] > 127
    if (upper == lower).any():
        return None
    return int(sum(int(bit) << (BITS - 1 - index) for index, bit in enumerate(upper)))


def bar_colours(picture: np.ndarray) -> np.ndarray:
    """The middle of each bar of an RGB picture, int (8, 3)."""
    height, width = picture.shape[:2]
    columns = (np.arange(len(BARS)) * 2 + 1) * width // (2 * len(BARS))
    return picture[height // 4, columns].astype(int)


def worst_colour_error(picture: np.ndarray) -> int:
    """The largest difference of any bar in any channel, in steps of 255."""
    return int(np.abs(bar_colours(picture) - BARS.astype(int)).max())
