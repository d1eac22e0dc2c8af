"""Numbers and clicks in pictures: written by the generators of a soak, read back by whoever watches the camera.

A row of `CELLS` patches runs across what becomes the middle of a canvas of 16:9 (see `CanvasComposer`, which keeps more
of the top of a portrait than of its bottom): the frame's number in bits, their parity, and a patch that is bright in a
frame in which a click begins, the brighter the later in the frame.
"""

from __future__ import annotations

import numpy as np

BITS = 20
CELLS = BITS + 2
GREY, GREYS = 90, 160
"""Of a click at the beginning of its frame, and how much brighter one at its end is."""

HEIGHT_SHARE = 0.06
SAMPLES = 640
"""Of one frame: 16 kHz at 25 frames a second."""

_QUIET_SAMPLES = 3200
_LOUD = 0.2


class ClickFinder:
    """Where in a frame a click begins after silence; frames come in order."""

    def __init__(self) -> None:
        self._quiet = 0

    def find(self, samples: np.ndarray) -> int:
        """`samples` float32 (640,) of one frame -> brightness of its patch, 0 for no click."""
        loud = np.flatnonzero(np.abs(samples) > _LOUD)
        if not len(loud):
            self._quiet += len(samples)
            return 0
        has_begun = self._quiet + loud[0] > _QUIET_SAMPLES
        self._quiet = len(samples) - 1 - int(loud[-1])
        return GREY + round(GREYS * int(loud[0]) / SAMPLES) if has_begun else 0


def write(image: np.ndarray, number: int, click: int) -> None:
    """Put the row into RGB uint8 (height, width, 3)."""
    height, width = image.shape[:2]
    bits = [number >> bit & 1 for bit in range(BITS)]
    values = [*(255 * bit for bit in bits), 255 * (sum(bits) % 2), click]
    edges = [cell * width // CELLS for cell in range(CELLS + 1)]
    reach = max(4, round(height * HEIGHT_SHARE / 2))
    shown = min(height, width * 9 // 16)
    middle = (height - shown) // 3 + shown // 2
    row = image[middle - reach : middle + reach]
    for value, left, right in zip(values, edges, edges[1:], strict=False):
        row[:, left:right] = value


def read(luma: np.ndarray) -> tuple[int, int] | None:
    """Luma uint8 (width,) of the middle line, limited range -> (number, brightness of the click's patch); None where
    that is no row."""
    width = len(luma)
    values = []
    for cell in range(CELLS):
        left, right = cell * width // CELLS, (cell + 1) * width // CELLS
        quarter = (right - left) // 4
        values.append(float(np.median(luma[left + quarter : right - quarter])))
    levels = [(value - 16) * 255 / 219 for value in values]
    bits = [int(level > 128) for level in levels[: BITS + 1]]
    if sum(bits) % 2 or not any(bits):  # a picture without marks may well be dark there
        return None
    number = sum(1 << bit for bit in range(BITS) if bits[bit])
    return number, max(0, round(levels[-1]))


def click_in_frame_s(brightness: int) -> float:
    """When in its frame a click begins, in s; call it with what `read` gave for a click."""
    return (brightness - GREY) / GREYS * SAMPLES / 16_000
