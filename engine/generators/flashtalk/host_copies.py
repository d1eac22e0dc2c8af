"""Finished frames on their way to the host, while the device works on the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.generators.flashtalk.stream import to_levels
from engine.generators.flashtalk.watch import Look, look_of, measure
from engine.parallel.tiles import RowBands


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """A group of frames that is being copied: `images` uint8 [n, H, W, 3] (on rank 0), the numbers of its look, and
    what tells that both have arrived."""

    frames: int
    images: Tensor | None
    look: Tensor
    done: torch.cuda.Event | None


class HostCopies:
    """It waits for a copy only once the decoder has been given its next latent frame. One stream, one thread."""

    def __init__(self, device: torch.device, bands: RowBands | None = None) -> None:
        self._is_cuda, self._bands = device.type == "cuda", bands

    def of(self, groups: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[np.ndarray | None, Look]]:
        """For every frame of `groups` (see `FlashTalkStream.frames`) its picture uint8 [H, W, 3], valid until the next
        one, and the look of its group before colour matching. With bands, rank 0 alone has pictures."""
        waiting: _Copy | None = None
        for raw, matched in groups:
            fresh = self._start(matched, self.look_numbers(raw))
            if waiting is not None:
                yield from _finish(waiting)
            waiting = fresh
        if waiting is not None:
            yield from _finish(waiting)

    def look_numbers(self, frames: Tensor) -> Tensor:
        """The numbers of `measure` for whole pictures, from the rows [1, 3, n, rows, W] that are here."""
        numbers = measure(frames)
        return numbers if self._bands is None else self._bands.average(numbers)

    def _start(self, matched: Tensor, look: Tensor) -> _Copy:
        levels: Tensor | None = to_levels(matched)
        if self._bands is not None:
            levels = self._bands.gather_first(levels)
        images = None if levels is None else levels.permute(1, 2, 3, 0).contiguous()
        done = None
        if self._is_cuda:
            images, look = (None if images is None else _pinned(images)), _pinned(look)
            done = torch.cuda.Event()
            done.record()
        return _Copy(frames=matched.shape[2], images=images, look=look, done=done)


def _pinned(part: Tensor) -> Tensor:
    """torch keeps pinned memory for the next allocation of that size, so this asks the driver only at first."""
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


def _finish(copy: _Copy) -> Iterator[tuple[np.ndarray | None, Look]]:
    if copy.done is not None:
        copy.done.synchronize()
    seen = look_of(copy.look)
    images = [None] * copy.frames if copy.images is None else copy.images.numpy()
    for image in images:
        yield image, seen
