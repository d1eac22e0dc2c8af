"""What FlashTalk could be asked for instead by somebody for whose GPU it is too slow: smaller sizes, and their cost."""

from __future__ import annotations

import re
from typing import Any

from engine.generators.base import SmallerSize
from engine.model_store.gpu_memory import SIZES, tokens_of

_PER_TOKEN, _PER_TOKEN_SQUARED, _PER_STEP = 0.02876, 8.19e-7, 3.2
"""TFLOP of a step, counted from the model's dimensions: linear layers and cross-attention, self-attention, the keys and
values of text and portrait (470.9 in all for the 12096 tokens of 768x448)."""
_VAE_PER_TOKEN = 106.4 / 12_096
_WORTHWHILE = 0.85
"""A size that saves less is no help."""
_ALIKE = 1.25
"""Sides may differ by so much from the shape that was chosen."""


def smaller_sizes(options: dict[str, Any]) -> list[SmallerSize]:
    """Offered sizes of about the shape that `options` ask for, largest first, each of which costs clearly less than the
    one before; none for options that no generator takes."""
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", str(options.get("size", "768x448")))
    steps = options.get("steps", 4)
    # By the sound: what must be fast enough is the most.
    steps = 4 if steps == "auto" else steps
    if sides is None or not isinstance(steps, int):
        return []
    height, width = int(sides[1]), int(sides[2])
    alike = [size for size in SIZES if 1 / _ALIKE < size[0] / size[1] * width / height < _ALIKE]
    whole = last = _teraflop(height, width, steps)
    found: list[SmallerSize] = []
    for other in sorted(alike, key=lambda size: -size[0] * size[1]):
        cost = _teraflop(*other, steps)
        if cost <= _WORTHWHILE * last:
            last = cost
            name = f"{other[0]}x{other[1]}"
            found.append(SmallerSize(name=name, cost=cost / whole, options={"size": name}))
    return found


def _teraflop(height: int, width: int, steps: int) -> float:
    """Of a chunk of 33 frames."""
    tokens = tokens_of(height, width)
    step = _PER_TOKEN * tokens + _PER_TOKEN_SQUARED * tokens * tokens + _PER_STEP
    return steps * step + _VAE_PER_TOKEN * tokens
