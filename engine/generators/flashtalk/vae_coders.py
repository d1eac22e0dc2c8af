"""The two halves of the video VAE: frames to latents and back (sections 4.2 and 4.3 of the specification)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from engine.generators.flashtalk.vae_history import History, SpatialTiles
from engine.generators.flashtalk.vae_layers import (
    AttentionBlock,
    CausalConv3d,
    Downsample,
    NormSilu,
    ResidualBlock,
    Unsummed,
    Upsample,
    summed,
)


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Widths and depth; the defaults are those of the published file. Three levels of resampling give 8 x 8 pixels."""

    dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(
                f"{len(self.dim_mult)} widths have {len(self.dim_mult) - 1} steps between them, "
                f"not the {len(self.temporal_downsample)} of temporal_downsample"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from full resolution to that of the latents."""
        return tuple(self.dim * factor for factor in self.dim_mult)


class Middle(nn.ModuleList):
    """Residual, attention, residual at the latents' resolution, on whole pictures."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [ResidualBlock(channels, channels), AttentionBlock(channels), ResidualBlock(channels, channels)]
        )

    def forward(self, x: Tensor | Unsummed, history: History) -> Tensor | Unsummed:
        """[1, C, n, h, w] -> the same shape."""
        before, attention, after = self
        return after(attention(summed(before(x, history))), history)


class Head(nn.ModuleDict):
    """Norm, SiLU and a convolution to the output's channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__({"0": NormSilu(in_channels), "2": CausalConv3d(in_channels, out_channels)})

    def forward(self, x: Tensor | Unsummed, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """[1, in, n, H, W] -> [1, out, n, H, W]."""
        if isinstance(x, Unsummed):
            return self["2"].after_sum(self["0"], x, history, tiles)[1]
        return self["2"].after(self["0"], x, history, tiles)


class Encoder(nn.Module):
    """Frames [1, 3, n, H, W] -> mean and log-variance [1, 2 z_dim, m, H/8, W/8].

    With tiles the levels above the latents' own run on bands of rows.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv1 = CausalConv3d(3, widths[0])
        blocks: list[nn.Module] = []
        for level, (below, width) in enumerate(pairwise((widths[0], *widths))):
            blocks += _level(below, width, config.num_res_blocks)
            if level < len(config.temporal_downsample):
                blocks.append(Downsample(width, in_time=config.temporal_downsample[level]))
        self.downsamples = nn.ModuleList(blocks)
        self.middle = Middle(widths[-1])
        self.head = Head(widths[-1], 2 * config.z_dim)

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """A stream's first group holds 1 + 4k frames, every other 4k; each 4 give one latent frame."""
        if tiles is not None:
            x = tiles.crop(x)
        encoded = _through(self.downsamples, self.conv1(x, history, tiles), history, tiles)
        if tiles is not None:
            encoded = tiles.gather(summed(encoded))
        return self.head(self.middle(encoded, history), history)


class Decoder(nn.Module):
    """Latents [1, z_dim, n, h, w] -> frames [1, 3, m, 8h, 8w].

    With tiles everything after the middle block runs on bands of rows.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        in_time = config.temporal_downsample[::-1]
        self.conv1 = CausalConv3d(config.z_dim, widths[0])
        self.middle = Middle(widths[0])
        blocks: list[nn.Module] = []
        above = widths[0]
        for level, width in enumerate(widths):
            blocks += _level(above, width, config.num_res_blocks + 1)
            if level < len(in_time):
                blocks.append(Upsample(width, in_time=in_time[level]))
                above = width // 2
        self.upsamples = nn.ModuleList(blocks)
        self.head = Head(widths[-1], 3)

    def forward(self, x: Tensor, history: History, tiles: SpatialTiles | None = None) -> Tensor:
        """A stream's first latent frame gives one frame, every other four."""
        decoded = self.middle(self.conv1(x, history), history)
        if tiles is not None:
            decoded = tiles.crop(summed(decoded))
        frames = self.head(_through(self.upsamples, decoded, history, tiles), history, tiles)
        return frames if tiles is None else tiles.gather(frames)

    def unneeded_before(self, frame: int) -> dict[nn.Module, int]:
        """Frames of output of each convolution that no frame from number `frame` on of a stream depends on.

        Each convolution sees two frames back. Up to the last resampling in time that leaves out little or nothing.
        """
        needed, wanted = frame, []
        for conv in self._after_last_doubling():
            wanted.append((conv, needed))
            needed = max(0, needed - 2)
        unneeded, begin = {}, 0
        for conv, first in reversed(wanted):
            unneeded[conv] = first - begin
            begin = first
        return unneeded

    def _after_last_doubling(self) -> Iterator[nn.Module]:
        """The convolutions over time, the last one first."""
        yield self.head["2"]
        for block in reversed(self.upsamples):
            if isinstance(block, ResidualBlock):
                yield block.residual["6"]
                yield block.residual["2"]
            elif hasattr(block, "time_conv"):
                return


def _level(in_channels: int, channels: int, blocks: int) -> list[nn.Module]:
    """Residual blocks at one resolution; the first one changes the width."""
    return [ResidualBlock(in_channels if n == 0 else channels, channels) for n in range(blocks)]


def _through(
    blocks: nn.ModuleList, x: Tensor | Unsummed, history: History, tiles: SpatialTiles | None
) -> Tensor | Unsummed:
    """Residual blocks take each other's results as they come, those that resample want tensors."""
    for block in blocks:
        x = block(x if isinstance(block, ResidualBlock) else summed(x), history, tiles)
    return x
