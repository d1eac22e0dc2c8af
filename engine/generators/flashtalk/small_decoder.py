"""A small decoder for pixels: the decoder of TAEHV's `taew2_1` (github.com/madebyollin/taehv, MIT), by its weights.

It was trained to give what the video VAE's decoder gives, from the same normalised latents, with a hundredth of the
work. Every layer works on single frames; its blocks see, beside each frame, the one before it at their own rate.
Parameters have the published names. Its encoder is not needed: latents of the next chunk come from the VAE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelFilesError
from engine.generators.flashtalk.kernels.vae_upsample import merged_weight, transposed
from engine.generators.flashtalk.weights import assign, cast, check_names, read_pth, read_safetensors

LATENT_CHANNELS = 16
_LATENT_RANGE = 3.0
"""Latents are bent softly into plus and minus this before the first layer."""
_FRAMES_PER_LATENT = 4
_TRIMMED = 3
"""Of the first latent frame's four frames only the last one is of the video."""


class MemoryBlock(nn.Module):
    """Three convolutions of each frame and the one before it, added to the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(2 * channels, channels, 3, padding=1)]
        layers += [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.conv = nn.ModuleDict({str(2 * number): layer for number, layer in enumerate(layers)})

    def forward(self, frames: Tensor, memory: dict[nn.Module, Tensor]) -> Tensor:
        """[n, C, H, W] -> the same shape."""
        before = memory.get(self)
        if before is None:
            with torch.inference_mode(False):  # a buffer made in that mode could not be written outside of it
                before = memory[self] = torch.zeros_like(frames[:1])
        x = F.relu_(self.conv["0"](_beside(frames, before)))
        before.copy_(frames[-1:])
        x = F.relu_(self.conv["2"](x))
        return F.relu_(self.conv["4"](x).add_(frames))


def _beside(frames: Tensor, before: Tensor) -> Tensor:
    """Each of the `frames` [n, C, H, W] with the one before it behind its channels: [n, 2C, H, W], written once."""
    count, channels = frames.shape[:2]
    pairs = _empty(frames, count, 2 * channels)
    pairs[:, :channels].copy_(frames)
    pairs[:1, channels:].copy_(before)
    pairs[1:, channels:].copy_(frames[:-1])
    return pairs


def _empty(like: Tensor, count: int, channels: int) -> Tensor:
    """Room for [count, channels, H, W] in the layout of `like` [n, C, H, W]."""
    layout = torch.channels_last if like.stride(1) == 1 and like.shape[1] > 1 else torch.contiguous_format
    shape = (count, channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


class Grow(nn.Module):
    """More frames out of the channels of each: one after another, [n, C, H, W] -> [n * rate, C, H, W]."""

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels * rate, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        grown = self.conv(frames)
        if grown.shape == frames.shape:
            return grown
        out = _empty(grown, grown.numel() // frames[0].numel(), frames.shape[1])
        out.unflatten(0, (len(frames), -1)).copy_(grown.unflatten(1, (-1, frames.shape[1])))
        return out


class Enlarge(nn.Conv2d):
    """Nearest up-sampling to twice the size, then 3 x 3 without a bias; in one step where that form is used."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        self.merged: Tensor | None = None

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        """[n, in, H, W] -> [n, out, 2H, 2W]."""
        if self.merged is not None:
            return transposed(frames, self.merged, None)
        return super().forward(F.interpolate(frames, scale_factor=2, mode="nearest"))


class SmallDecoder(nn.Module):
    """Normalised latents to frames. Holds weights and nothing of any stream; computes in the dtype of its weights."""

    def __init__(self, widths: tuple[int, int, int, int] = (256, 128, 64, 64)) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"1": nn.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1)}
        place = 3
        for (width, narrower), rate in zip(pairwise(widths), (1, 2, 2), strict=True):
            layers.update({str(place + number): MemoryBlock(width) for number in range(3)})
            layers[str(place + 4)] = Grow(width, rate)
            layers[str(place + 5)] = Enlarge(width, narrower)
            place += 6
        layers[str(place + 1)] = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.decoder = nn.ModuleDict(layers)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Frames of normalised `latents` [16, T, h, w] like `Vae.decode`: [1, 3, 1, 8h, 8w], then 4 at a time."""
        stream = SmallStream(self)
        for latent in latents.split(1, dim=1):
            yield stream.push(latent)

    def use_channels_last(self) -> None:
        """Lay the weights out channels last, which activations then follow."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def merge_upsampling(self) -> None:
        """Up-sample and convolve in one from now on; loses nothing unless weights are narrower than float32."""
        for layer in self.decoder.values():
            if isinstance(layer, Enlarge):
                layer.merged = merged_weight(layer.weight.detach(), layer.weight.dtype)

    def forward(self, frames: Tensor, memory: dict[nn.Module, Tensor]) -> Tensor:
        """Latents [n, 16, h, w] -> raw frames [4n, 3, 8h, 8w] in about 0 to 1."""
        layers = list(self.decoder.values())
        x = F.relu_(layers[0](torch.tanh(frames / _LATENT_RANGE).mul_(_LATENT_RANGE)))
        for layer in layers[1:-1]:
            # As published, growth comes after up-sampling; it works pixel by pixel, so it may as well come before.
            x = layer(x, memory) if isinstance(layer, MemoryBlock) else layer(x)
        return layers[-1](F.relu_(x))


class SmallStream:
    """One video on its way through the decoder; owns what its blocks remember. One thread.

    After the first call all calls with one latent frame have equal shapes, and buffers stay where they are.
    """

    def __init__(self, decoder: SmallDecoder) -> None:
        self._decoder = decoder
        self._memory: dict[nn.Module, Tensor] = {}
        self._at_start = True

    def reset(self) -> None:
        """Begin a new video of the same size."""
        for before in self._memory.values():
            before.zero_()
        self._at_start = True

    @torch.no_grad()
    def push(self, latents: Tensor) -> Tensor:
        """The next frames [1, 3, m, 8h, 8w] in [-1, 1] from the next normalised `latents` [16, n, h, w].

        A stream's first latent frame gives one frame, every other four. Raises ValueError for other shapes.
        """
        if latents.dim() != 4 or latents.shape[0] != LATENT_CHANNELS or latents.shape[1] == 0:
            raise ValueError(f"latents are [16, n, rows, columns], not {list(latents.shape)}")
        weight = self._decoder.decoder["1"].weight
        is_last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        layout = torch.channels_last if is_last else torch.contiguous_format
        frames = latents.transpose(0, 1).to(weight.dtype, memory_format=layout)
        raw = self._decoder(frames, self._memory)
        video = raw[_TRIMMED if self._at_start else 0 :].clamp(0, 1).mul_(2).sub_(1)
        self._at_start = False
        return video.transpose(0, 1).unsqueeze(0)


def load_small_decoder(path: Path, device: torch.device, dtype: torch.dtype) -> SmallDecoder:
    """The decoder of a published file, .pth or .safetensors. Raises `ModelFilesError`."""
    if not path.is_file():
        raise ModelFilesError(
            f"There are no weights of a small decoder at {path}.",
            code="model_files.missing",
            hint="Give the file taew2_1.safetensors or taew2_1.pth with decoder_weights.",
        )
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_pth(path)
    state = {name: value for name, value in state.items() if name.startswith("decoder.")}
    with torch.device("meta"):
        decoder = SmallDecoder()
    expected = decoder.state_dict()
    state = _with_fewer_frames(state, expected)
    try:
        check_names(expected, state, path)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"The weights in {path} are not those of the small decoder for this model.",
            code="model_files.wrong_weights",
            hint="Give the file taew2_1.safetensors or taew2_1.pth with decoder_weights.",
            detail=str(error),
        ) from error
    assign(decoder, cast(state, device, dtype))
    if device.type == "cuda":
        decoder.use_channels_last()
    else:
        decoder.merge_upsampling()
    return decoder


def _with_fewer_frames(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Files may hold weights for more frames than the first growth makes; the last frames' are those that count."""
    fitted = dict(state)
    for name, value in state.items():
        wanted = expected.get(name)
        is_growth = name.endswith(".conv.weight") and value.dim() == 4 and value.shape[-1] == 1
        if wanted is not None and is_growth and value.shape[0] > wanted.shape[0]:
            fitted[name] = value[-wanted.shape[0] :]
    return fitted
