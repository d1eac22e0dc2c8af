"""What the video VAE's layers see besides the frames that are new: the frames before them, and rows of other ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.kernels.vae_norm import room_like


class SpatialTiles(Protocol):
    """Pictures cut into bands of rows, one for each of several ranks, all of which run the same calls in step.

    Only rows are cut, in equal bands from top to bottom, and a band is a whole number of latent rows; so rows divide
    at every resolution of the VAE, and windows of stride 2 begin in one band and never between two.
    """

    def crop(self, x: Tensor) -> Tensor:
        """This rank's band [..., rows / ranks, W] of pictures [..., rows, W] that every rank has in full."""
        ...

    def with_halo(self, x: Tensor, *, top: int, bottom: int) -> Tensor:
        """The band `x` with `top` rows of the band above and `bottom` of the one below; zeros beyond the picture."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """The full pictures from every rank's band, on every rank."""
        ...


class History:
    """What one stream remembers: the last input frames of every convolution over time, zeros before the first frame.

    Buffers are made by the first group of a stream and stay where they are from then on, also over `clear`, so calls
    of equal shape can be recorded once and replayed.
    """

    def __init__(self) -> None:
        self.at_start = True
        """Whether the group being computed holds the stream's first frame, which resampling in time treats apart."""
        self._frames: dict[nn.Module, Tensor] = {}
        self._unneeded: dict[nn.Module, int] = {}

    def leave_out(self, unneeded: Mapping[nn.Module, int]) -> None:
        """Of these convolutions the first so many frames of output are not needed, and not computed from now on."""
        self._unneeded = dict(unneeded)

    def skip(self, conv: nn.Module, frames: int) -> int:
        """How many of the next `frames` frames of output of `conv` are not needed; counted off."""
        left = self._unneeded.get(conv, 0)
        skipped = min(left, frames)
        if skipped:
            self._unneeded[conv] = left - skipped
        return skipped

    def clear(self) -> None:
        """Begin a new stream of the same size, of which everything is needed."""
        self._unneeded = {}
        for frames in self._frames.values():
            frames.zero_()
        self.at_start = True

    def before(self, conv: nn.Module, like: Tensor, frames: int = 2) -> Tensor:
        """The last `frames` input frames of `conv`, laid out as `like`; zeros where there were none."""
        if conv not in self._frames:
            with torch.inference_mode(False):  # a buffer made in that mode could not be written outside of it
                self._frames[conv] = room_like(like, frames).zero_()
        return self._frames[conv]

    def keep(self, conv: nn.Module, joined: Tensor) -> None:
        """Remember the last frames of `joined`, which are all of the input that there was lately."""
        kept = self._frames[conv]
        kept.copy_(joined[:, :, -kept.shape[2] :])

    def join(self, conv: nn.Module, x: Tensor, frames: int = 2) -> Tensor:
        """`x` with the `frames` frames before it; the last ones are kept for the next call."""
        before = self.before(conv, x, frames)
        joined = room_like(x, frames + x.shape[2])
        joined[:, :, :frames].copy_(before)
        joined[:, :, frames:].copy_(x)
        self.keep(conv, joined)
        return joined

    def begin(self, conv: nn.Module, x: Tensor) -> Tensor:
        """`x`, a stream's first frame alone; it is kept behind zeros."""
        self.before(conv, x)[:, :, -1:].copy_(x)
        return x


def rows_around(x: Tensor, tiles: SpatialTiles | None, *, top: int = 1, bottom: int = 1) -> tuple[Tensor, int]:
    """Rows for a convolution of height 3, wherever its neighbours are: (x, rows of zeros it has yet to add itself).

    All that convolutions see beyond a band of rows comes through here. A whole picture is left as it is: there the
    convolution's own padding costs nothing.
    """
    if tiles is None:
        return x, 1
    return tiles.with_halo(x, top=top, bottom=bottom), 0
