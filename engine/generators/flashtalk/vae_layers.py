"""Building blocks of the video VAE: convolutions that remember, norms, residual and attention blocks, resampling.

Videos are [1, C, T, H, W]. Every block takes the frames that are new and a `History` with the frames before them, so a
stream may be cut into groups of any size without a change in the result. Parameters have the published names, hence
the containers with numbers for keys. Sections 4.1 and 4.4 of the specification are here; Wan 2.1's VAE is the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.generators.flashtalk.kernels.registry import EAGER
from engine.generators.flashtalk.kernels.vae_norm import ADD_BIAS, NORM_SILU, NORM_SILU_JOIN, rms_norm, room_like
from engine.generators.flashtalk.kernels.vae_upsample import transposed


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
        return rms_norm(x, self.gamma)


class NormSilu(RmsNorm):
    """The weights of an RMS norm with SiLU behind it, of which `CausalConv3d.after` computes both in one."""


class CausalConv3d(nn.Conv3d):
    """3 x 3 x 3 over the frame itself and the two before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)
        self.kernels = EAGER

    def forward(  # type: ignore[override]
        self, x: Tensor, history: History, tiles: SpatialTiles | None = None
    ) -> Tensor:
        """New frames [1, in, n, H, W] -> [1, out, n, H, W]."""
        x, missing_rows = rows_around(x, tiles)
        joined = history.begin(self, x) if history.at_start and x.shape[2] == 1 else history.join(self, x)
        return self._convolve(joined[:, :, history.skip(self, x.shape[2]) :], missing_rows, self.bias)

    def after(
        self,
        norm: NormSilu,
        x: Tensor,
        history: History,
        tiles: SpatialTiles | None = None,
        *,
        bias: Tensor | None = None,
        adds_bias: bool = True,
    ) -> Tensor:
        """The same of what `norm` and SiLU make of `x` + `bias` [in]; without its own bias where that is added later.

        In one pass `x` is normed into the place behind the frames before it.
        """
        own_bias = self.bias if adds_bias else None
        if x.shape[2] == 0:
            return x.new_empty((1, self.out_channels, *x.shape[2:]))
        skipped = history.skip(self, x.shape[2])
        if tiles is not None:
            normed = self.kernels[NORM_SILU](x, norm.gamma, bias)
            x, missing_rows = rows_around(normed, tiles)
            return self._convolve(history.join(self, x)[:, :, skipped:], missing_rows, own_bias)
        if history.at_start and x.shape[2] == 1:
            joined = history.begin(self, self.kernels[NORM_SILU](x, norm.gamma, bias))
        else:
            joined = self.kernels[NORM_SILU_JOIN](x, history.before(self, x), norm.gamma, bias)
            history.keep(self, joined)
        return self._convolve(joined[:, :, skipped:], 1, own_bias)

    def _convolve(self, joined: Tensor, missing_rows: int, bias: Tensor | None) -> Tensor:
        if joined.shape[2] in (0, 2):  # none of the output is needed
            rows, columns = joined.shape[3] - 2 + 2 * missing_rows, joined.shape[4]
            return joined.new_empty((1, self.out_channels, 0, rows, columns))
        if joined.shape[2] == 1:  # the two frames before are zeros: a third of the work is left, and no third axis
            frame = F.conv2d(joined.squeeze(2), self.weight[:, :, -1], bias, padding=(missing_rows, 1))
            return frame.unsqueeze(2)
        return F.conv3d(joined, self.weight, bias, padding=(0, missing_rows, 1))


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
        self.kernels = EAGER

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, in, n, H, W] -> [1, out, n, H, W]."""
        first, second = self.residual["2"], self.residual["6"]
        if ADD_BIAS not in self.kernels:
            inner = first.after(self.residual["0"], x, history, tiles)
            inner = second.after(self.residual["3"], inner, history, tiles)
            return inner.add_(self.shortcut(_last(x, inner)))
        # cuDNN adds no bias itself: each one would be another pass, so they wait for the next one that there is anyway.
        inner = first.after(self.residual["0"], x, history, tiles, adds_bias=False)
        inner = second.after(self.residual["3"], inner, history, tiles, bias=first.bias, adds_bias=False)
        bias, x = second.bias.to(torch.promote_types(x.dtype, torch.float32)), _last(x, inner)
        if isinstance(self.shortcut, nn.Conv3d):
            bias, x = bias + self.shortcut.bias, F.conv3d(x, self.shortcut.weight)
        return self.kernels[ADD_BIAS](inner, x, bias)


def _last(x: Tensor, like: Tensor) -> Tensor:
    """The last frames of `x`, as many as `like` has."""
    return x[:, :, x.shape[2] - like.shape[2] :]


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
        self.merged: Tensor | None = None
        """What `merged_weight` makes of the convolution's weight, where that form is used."""
        self._in_time = in_time
        if in_time:
            self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1))

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, C, n, H, W] -> [1, C/2, m, 2H, 2W]."""
        if self._in_time:
            x = self._double_frames(x, history)
        if self.merged is not None:
            x, missing_rows = rows_around(x, tiles)
            bias = self.resample["1"].bias
            return as_video(transposed(as_frames(x), self.merged, bias, halo=1 - missing_rows))
        x = as_video(F.interpolate(as_frames(x), scale_factor=2, mode="nearest"))
        return self.resample["1"](x, tiles)

    def _double_frames(self, x: Tensor, history: History) -> Tensor:
        """The first frame stands alone, and is not even history: before the second lie zeros."""
        if not history.at_start:
            return self._pairs(history.join(self.time_conv, x))
        history.before(self.time_conv, x)
        first, rest = x[:, :, :1], x[:, :, 1:]
        return (
            first if rest.shape[2] == 0 else torch.cat((first, self._pairs(history.join(self.time_conv, rest))), dim=2)
        )

    def _pairs(self, joined: Tensor) -> Tensor:
        """Of twice the channels, the first half is the earlier frame."""
        earlier, later = self.time_conv(joined).chunk(2, dim=1)
        in_order = [half[:, :, n : n + 1] for n in range(earlier.shape[2]) for half in (earlier, later)]
        return torch.cat(in_order, dim=2)  # a cat of slices keeps the memory format
