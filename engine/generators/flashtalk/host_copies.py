"""Finished frames on their way to the host, while the device works on the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.generators.flashtalk.kernels.color_match import TO_BYTES
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels
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
    """It waits for a copy only once the decoder has been given its next latent frame. One stream, one thread.

    On a GPU copies have a stream of their own, which waits for the frames and for which no work waits.
    """

    def __init__(self, device: torch.device, bands: RowBands | None = None, kernels: Kernels = EAGER) -> None:
        self._bands, self._to_bytes = bands, kernels[TO_BYTES]
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

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
        images = self._images(matched)
        if self._side is None:
            return _Copy(frames=matched.shape[2], images=images, look=look, done=None)
        self._side.wait_stream(torch.cuda.current_stream(self._side.device))
        with torch.cuda.stream(self._side):
            images, look = (None if images is None else _pinned(images)), _pinned(look)
            done = torch.cuda.Event()
            done.record(self._side)
        return _Copy(frames=matched.shape[2], images=images, look=look, done=done)

    def _images(self, matched: Tensor) -> Tensor | None:
        """Whole pictures uint8 [n, H, W, 3] on the device; None where another rank has them."""
        images = self._to_bytes(matched)
        if self._bands is None:
            return images
        levels = self._bands.gather_first(images.movedim(-1, 0))
        return None if levels is None else levels.movedim(0, -1).contiguous()


def _pinned(part: Tensor) -> Tensor:
    """On the present stream. torch keeps pinned memory for the next allocation of that size, so this asks the driver
    only at first; and `part` is not handed out again before the copy is done."""
    part.record_stream(torch.cuda.current_stream(part.device))
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


def _finish(copy: _Copy) -> Iterator[tuple[np.ndarray | None, Look]]:
    if copy.done is not None:
        copy.done.synchronize()
    seen = look_of(copy.look)
    images = [None] * copy.frames if copy.images is None else copy.images.numpy()
    for image in images:
        yield image, seen
