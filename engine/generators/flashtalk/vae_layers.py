"""Building blocks of the video VAE: convolutions that remember, norms, residual and attention blocks, resampling.

Videos are [1, C, T, H, W]. Every block takes the frames that are new and a `History` with the frames before them, so a
stream may be cut into groups of any size without a change in the result. Parameters have the published names, hence
the containers with numbers for keys. Sections 4.1 and 4.4 of the specification are here; Wan 2.1's VAE is the model.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_FLOOR = 1e-12


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

    def clear(self) -> None:
        """Begin a new stream of the same size."""
        for frames in self._frames.values():
            frames.zero_()
        self.at_start = True

    def reserve(self, conv: nn.Module, like: Tensor, frames: int = 2) -> Tensor:
        """The buffer of `conv` for inputs such as `like`; made of zeros when it is not there."""
        if conv not in self._frames:
            with torch.inference_mode(False):  # a buffer made in that mode could not be written outside of it
                self._frames[conv] = torch.cat([torch.zeros_like(like[:, :, :1])] * frames, dim=2)
        return self._frames[conv]

    def join(self, conv: nn.Module, x: Tensor, frames: int = 2) -> Tensor:
        """`x` with the `frames` frames before it; the last ones are kept for the next call."""
        before = self.reserve(conv, x, frames)
        joined = torch.cat((before, x), dim=2)
        before.copy_(joined[:, :, -frames:])
        return joined


def rows_around(x: Tensor, tiles: SpatialTiles | None, *, top: int = 1, bottom: int = 1) -> tuple[Tensor, int]:
    """Rows for a convolution of height 3, wherever its neighbours are: (x, rows of zeros it has yet to add itself).

    All that convolutions see beyond a band of rows comes through here. A whole picture is left as it is: there the
    convolution's own padding costs nothing.
    """
    if tiles is None:
        return x, 1
    return tiles.with_halo(x, top=top, bottom=bottom), 0


def as_frames(video: Tensor) -> Tensor:
    """[1, C, T, H, W] as pictures [T, C, H, W], without a copy."""
    return video.squeeze(0).transpose(0, 1)


def as_video(frames: Tensor) -> Tensor:
    """[T, C, H, W] as a video [1, C, T, H, W], without a copy."""
    return frames.unsqueeze(0).transpose(1, 2)  # in this order the strides still tell the layout


class RmsNorm(nn.Module):
    """gamma sqrt(C) x / |x| over the channels, axis 1; inside in float32 at least, rounded once at the end."""

    def __init__(self, channels: int, *, axes_after: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes_after))

    def forward(self, x: Tensor) -> Tensor:
        return self._normed(x).to(x.dtype)

    def _normed(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
        return x * (math.sqrt(x.shape[1]) / length.clamp(min=NORM_FLOOR)) * self.gamma


class NormSilu(RmsNorm):
    """RMS norm, then SiLU; nothing is rounded between them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self._normed(x)).to(x.dtype)


class CausalConv3d(nn.Conv3d):
    """3 x 3 x 3 over the frame itself and the two before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)

    def forward(  # type: ignore[override]
        self, x: Tensor, history: History, tiles: SpatialTiles | None = None
    ) -> Tensor:
        """New frames [1, in, n, H, W] -> [1, out, n, H, W]."""
        x, missing_rows = rows_around(x, tiles)
        joined, weight = history.join(self, x), self.weight
        if history.at_start and x.shape[2] == 1:  # the two frames before are zeros: a third of the work is left
            joined, weight = x, weight[:, :, -1:]
        return F.conv3d(joined, weight, self.bias, padding=(0, missing_rows, 1))


class FrameConv2d(nn.Conv2d):
    """3 x 3 on each frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)

    def forward(self, x: Tensor, tiles: SpatialTiles | None = None) -> Tensor:  # type: ignore[override]
        """[1, in, n, H, W] -> [1, out, n, H, W]."""
        x, missing_rows = rows_around(x, tiles)
        return as_video(F.conv2d(as_frames(x), self.weight, self.bias, padding=(missing_rows, 1)))


class ResidualBlock(nn.Module):
    """Two rounds of norm, SiLU and convolution, added to the input or, where the width changes, to its projection."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": NormSilu(in_channels),
                "2": CausalConv3d(in_channels, out_channels),
                "3": NormSilu(out_channels),
                "6": CausalConv3d(out_channels, out_channels),
            }
        )
        is_wider = in_channels != out_channels
        self.shortcut = nn.Conv3d(in_channels, out_channels, 1) if is_wider else nn.Identity()

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, in, n, H, W] -> [1, out, n, H, W]."""
        layers = self.residual
        inner = layers["2"](layers["0"](x), history, tiles)
        inner = layers["6"](layers["3"](inner), history, tiles)
        return inner.add_(self.shortcut(x))


class AttentionBlock(nn.Module):
    """One head of full attention among the positions of each frame; needs whole pictures, never bands of rows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, axes_after=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, n, h, w] -> the same shape."""
        frames = as_frames(x)
        positions = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)
        query, key, value = positions.unsqueeze(1).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        attended = attended.transpose(1, 2).unflatten(2, frames.shape[2:])
        return x + as_video(self.proj(attended))


class Downsample(nn.Module):
    """Half the rows and columns; with `in_time` also half the frames, of which a stream's first one stays."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self._in_time = in_time
        if in_time:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, C, n, H, W] -> [1, C, m, H/2, W/2]."""
        x, missing_rows = rows_around(x, tiles, top=0)
        frames = F.pad(as_frames(x), (0, 1, 0, missing_rows))
        x = as_video(self.resample["1"](frames))
        return self._halve_frames(x, history) if self._in_time else x

    def _halve_frames(self, x: Tensor, history: History) -> Tensor:
        """Windows (0, 1, 2), (2, 3, 4), ...: each begins with the frame that ended the one before."""
        joined = history.join(self.time_conv, x, frames=1)
        if not history.at_start:
            return self.time_conv(joined)
        return x if x.shape[2] == 1 else torch.cat((x[:, :, :1], self.time_conv(x)), dim=2)


class Upsample(nn.Module):
    """Twice the rows and columns, half the channels; with `in_time` also two frames for each but a stream's first."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": FrameConv2d(channels, channels // 2)})
        self._in_time = in_time
        if in_time:
            self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1))

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, C, n, H, W] -> [1, C/2, m, 2H, 2W]."""
        if self._in_time:
            x = self._double_frames(x, history)
        x = as_video(F.interpolate(as_frames(x), scale_factor=2, mode="nearest"))
        return self.resample["1"](x, tiles)

    def _double_frames(self, x: Tensor, history: History) -> Tensor:
        """The first frame stands alone, and is not even history: before the second lie zeros."""
        if not history.at_start:
            return self._pairs(history.join(self.time_conv, x))
        history.reserve(self.time_conv, x)
        first, rest = x[:, :, :1], x[:, :, 1:]
        return (
            first if rest.shape[2] == 0 else torch.cat((first, self._pairs(history.join(self.time_conv, rest))), dim=2)
        )

    def _pairs(self, joined: Tensor) -> Tensor:
        """Of twice the channels, the first half is the earlier frame."""
        earlier, later = self.time_conv(joined).chunk(2, dim=1)
        in_order = [half[:, :, n : n + 1] for n in range(earlier.shape[2]) for half in (earlier, later)]
        return torch.cat(in_order, dim=2)  # a cat of slices keeps the memory format
