"""Building blocks of the video VAE: convolutions that remember, norms, residual and attention blocks, resampling.

Videos are [1, C, T, H, W]. Every block takes the frames that are new and a `History` with the frames before them, so a
stream may be cut into groups of any size without a change in the result. Parameters have the published names, hence
the containers with numbers for keys. Sections 4.1 and 4.4 of the specification are here; Wan 2.1's VAE is the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.generators.flashtalk.kernels.registry import EAGER, Function
from engine.generators.flashtalk.kernels.vae_norm import (
    ADD_BIAS,
    ADD_NORM_SILU_JOIN,
    NORM_SILU,
    NORM_SILU_JOIN,
    rms_norm,
)
from engine.generators.flashtalk.kernels.vae_upsample import transposed
from engine.generators.flashtalk.vae_history import History, SpatialTiles, rows_around


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


class Unsummed:
    """A residual block's result [1, C, n, H, W] before it is added up, which the next one does in the pass of its norm.

    What it holds is taken once: kept any longer, two videos more would be in memory.
    """

    def __init__(self, inner: Tensor, x: Tensor, bias: Tensor, add: Function) -> None:
        """`inner` + `x` + `bias` [C]; `add` does that, and nothing else, where the sum alone is wanted."""
        self._parts, self._add = [(inner, x, bias)], add

    @property
    def inner(self) -> Tensor:
        """The one that a convolution has made."""
        return self._parts[0][0]

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that it was made of."""
        return self._parts.pop()

    def sum(self) -> Tensor:
        """The result itself, which takes what is held."""
        return self._add(*self.take())


def summed(x: Tensor | Unsummed) -> Tensor:
    """`x` as a tensor."""
    return x.sum() if isinstance(x, Unsummed) else x


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
        if x.shape[2] == 0:
            return x.new_empty((1, self.out_channels, *x.shape[2:]))
        before = self._before(x, history, tiles)
        if before is None:
            normed = self.kernels[NORM_SILU](x, norm.gamma, bias)
        else:
            normed = self.kernels[NORM_SILU_JOIN](x, before, norm.gamma, bias)
        own_bias = self.bias if adds_bias else None
        return self._convolve_normed(normed, x.shape[2], before is not None, history, tiles, own_bias)

    def after_sum(
        self,
        norm: NormSilu,
        x: Unsummed,
        history: History,
        tiles: SpatialTiles | None = None,
        *,
        adds_bias: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """What `x` adds up to, and `after` of it; both, and the norm, in one pass."""
        frames = x.inner.shape[2]
        if frames == 0:
            total = x.sum()
            return total, self.after(norm, total, history, tiles, adds_bias=adds_bias)
        before = self._before(x.inner, history, tiles)
        earlier = x.inner[:, :, :0] if before is None else before
        total, normed = self.kernels[ADD_NORM_SILU_JOIN](*x.take(), earlier, norm.gamma)
        del earlier  # with it, what was added up
        own_bias = self.bias if adds_bias else None
        return total, self._convolve_normed(normed, frames, before is not None, history, tiles, own_bias)

    def _before(self, like: Tensor, history: History, tiles: SpatialTiles | None) -> Tensor | None:
        """The frames that normed ones can be written behind at once; not where other rows are to come between, nor
        where nothing was before."""
        if tiles is not None or (history.at_start and like.shape[2] == 1):
            return None
        return history.before(self, like)

    def _convolve_normed(
        self,
        normed: Tensor,
        frames: int,
        is_joined: bool,
        history: History,
        tiles: SpatialTiles | None,
        bias: Tensor | None,
    ) -> Tensor:
        skipped, missing_rows = history.skip(self, frames), 1
        if is_joined:
            history.keep(self, normed)
        elif tiles is None:
            normed = history.begin(self, normed)
        else:
            normed, missing_rows = rows_around(normed, tiles)
            normed = history.join(self, normed)
        return self._convolve(normed[:, :, skipped:], missing_rows, bias)

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

    def forward(self, x: Tensor | Unsummed, history: History, tiles: SpatialTiles | None = None) -> Tensor | Unsummed:
        """[1, in, n, H, W] -> [1, out, n, H, W]; not added up only where that is fused with the next block's norm."""
        first, second = self.residual["2"], self.residual["6"]
        if ADD_BIAS not in self.kernels:
            x = summed(x)
            inner = first.after(self.residual["0"], x, history, tiles)
            inner = second.after(self.residual["3"], inner, history, tiles)
            return inner.add_(self.shortcut(_last(x, inner)))
        # cuDNN adds no bias itself: each one would be another pass, so they wait for the next one that there is anyway.
        if isinstance(x, Unsummed):
            given, inner = first.after_sum(self.residual["0"], x, history, tiles, adds_bias=False)
        else:
            given, inner = x, first.after(self.residual["0"], x, history, tiles, adds_bias=False)
        inner = second.after(self.residual["3"], inner, history, tiles, bias=first.bias, adds_bias=False)
        bias, own = second.bias.to(torch.promote_types(given.dtype, torch.float32)), _last(given, inner)
        if isinstance(self.shortcut, nn.Conv3d):
            bias, own = bias + self.shortcut.bias, F.conv3d(own, self.shortcut.weight)
        result = Unsummed(inner, own, bias, self.kernels[ADD_BIAS])
        return result if ADD_NORM_SILU_JOIN in self.kernels else result.sum()


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
