"""The video VAE as the model uses it: frames in [-1, 1] to normalised latents and back, as streams.

The first frame of a video has a latent frame of its own, then four share one; a latent covers 8 x 8 pixels. Both
directions are causal: a stream may be fed in groups of any size, and what has come out never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.kernels.registry import Kernels
from engine.generators.flashtalk.kernels.vae_upsample import merged_weight
from engine.generators.flashtalk.vae_coders import Decoder, Encoder, VaeConfig
from engine.generators.flashtalk.vae_history import History, SpatialTiles
from engine.generators.flashtalk.vae_layers import Upsample

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
"""Mean of each latent channel over the training videos (section 4.3 of the specification); not in the checkpoint."""
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Standard deviation of each latent channel."""
FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8


class Vae(nn.Module):
    """Encoder and decoder with the published parameter names (Wan2.1_VAE.pth, 194 tensors).

    Holds weights and nothing of any stream, so many streams may use one, from one thread at a time. Computes in the
    dtype of its weights; nothing here records gradients.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        if config.z_dim != len(LATENT_MEAN):
            raise ValueError(f"latents have {len(LATENT_MEAN)} channels, not {config.z_dim}")
        self.encoder = Encoder(config)
        self.conv1 = nn.Conv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.conv2 = nn.Conv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config)
        self._scales: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def encode(self, video: Tensor, *, tiles: SpatialTiles | None = None) -> Tensor:
        """Latents [16, T, H/8, W/8] of `video` [1, 3, 4 (T - 1) + 1, H, W] in [-1, 1].

        They are the posterior's mean (never a sample), normalised, in float32 or wider. The first frame goes alone,
        then four at a time, which bounds memory. Raises ValueError for other shapes.
        """
        return torch.cat(list(self.encode_groups(video, tiles=tiles)), dim=1)

    def encode_groups(self, video: Tensor, *, tiles: SpatialTiles | None = None) -> Iterator[Tensor]:
        """The same latents one frame at a time, [16, 1, H/8, W/8], each computed when it is asked for."""
        stream = self.encode_stream(tiles=tiles)
        if video.shape[2] % FRAMES_PER_LATENT != 1:
            raise ValueError(f"a video has 4k + 1 frames, not {video.shape[2]}")
        for group in video.split([1] + [FRAMES_PER_LATENT] * ((video.shape[2] - 1) // FRAMES_PER_LATENT), dim=2):
            yield stream.push(group)

    def decode(self, latents: Tensor, *, tiles: SpatialTiles | None = None) -> Iterator[Tensor]:
        """Frames of normalised `latents` [16, T, h, w], as soon as they are done: [1, 3, 1, 8h, 8w], then 4 at a time.

        They are clamped to [-1, 1] and in the dtype of the weights. What is not asked for is not computed.
        """
        stream = self.decode_stream(tiles=tiles)
        for latent in latents.split(1, dim=1):
            yield stream.push(latent)

    def decode_all(self, latents: Tensor, *, tiles: SpatialTiles | None = None) -> Tensor:
        """All frames [1, 3, 4 (T - 1) + 1, 8h, 8w] of `latents` [16, T, h, w]; see `decode`."""
        return torch.cat(list(self.decode(latents, tiles=tiles)), dim=2)

    def decode_tail(
        self, latents: Tensor, frames: int, *, context: int = 0, tiles: SpatialTiles | None = None
    ) -> Tensor:
        """The last `frames` frames [1, 3, frames, 8h, 8w] of `latents` [16, T, h, w], as `decode` gives them.

        Every frame depends on all latents before it, so all of them are gone through, but not at every resolution: of
        33 frames the last 5 take two thirds of the work. With a `context` only the last so many latents are decoded,
        as if nothing had been before; that is cheaper and only nearly the same. Raises ValueError for too few.
        """
        latents = latents[:, -context:] if context else latents
        count = 1 + FRAMES_PER_LATENT * (latents.shape[1] - 1)
        if frames > count:
            raise ValueError(f"{latents.shape[1]} latent frames have {count} frames, not {frames}")
        stream = self.decode_stream(tiles=tiles)
        stream.leave_out_before(count - frames)
        return torch.cat([stream.push(latent) for latent in latents.split(1, dim=1)], dim=2)

    def encode_stream(self, *, tiles: SpatialTiles | None = None) -> EncodeStream:
        """A new, empty stream of frames."""
        return EncodeStream(self, tiles)

    def decode_stream(self, *, tiles: SpatialTiles | None = None) -> DecodeStream:
        """A new, empty stream of latents."""
        return DecodeStream(self, tiles)

    def use_channels_last(self) -> None:
        """Lay the convolutions' weights out channels last, which activations then follow; faster on tensor cores."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
            elif isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def use_kernels(self, kernels: Kernels) -> None:
        """These fused kernels from now on; `merge_upsampling` is a step of its own."""
        for module in self.modules():
            if hasattr(module, "kernels"):
                module.kernels = kernels

    def merge_upsampling(self, published: Mapping[str, Tensor] | None = None) -> None:
        """Up-sample and convolve in one from now on, by weights added up from the `published` ones by name.

        Without those from the weights as they are, which loses nothing unless they are narrower than float32.
        """
        for name, module in self.named_modules():
            if isinstance(module, Upsample):
                own = module.resample["1"].weight
                exact = own if published is None else published[f"{name}.resample.1.weight"]
                module.merged = merged_weight(exact.detach(), own.dtype).to(own.device)

    @property
    def memory_format(self) -> torch.memory_format:
        """How videos are laid out here; all that comes in is brought into this layout at once."""
        is_last = self.decoder.conv1.weight.stride(1) == 1
        return torch.channels_last_3d if is_last else torch.contiguous_format

    def latent_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, 16, 1, 1, 1] beside the weights, in float32 or wider; copied there once."""
        weight = self.conv1.weight
        key = (weight.device, torch.promote_types(weight.dtype, torch.float32))
        if key not in self._scales:
            mean, std = (
                torch.tensor(values, dtype=torch.float64).to(*key).reshape(1, -1, 1, 1, 1)
                for values in (LATENT_MEAN, LATENT_STD)
            )
            self._scales[key] = (mean, std)
        return self._scales[key]


class _Stream:
    """One video on its way through the VAE; owns what the convolutions remember of it. One thread."""

    def __init__(self, vae: Vae, tiles: SpatialTiles | None = None) -> None:
        self._vae = vae
        self._tiles = tiles
        self._history = History()
        self._size: torch.Size | None = None

    def reset(self) -> None:
        """Begin a new video of the same size; buffers stay where they are."""
        self._history.clear()

    def _check_size(self, size: torch.Size) -> None:
        self._size = self._size or size
        if size != self._size:
            raise ValueError(f"a stream of {list(self._size)} rows and columns was given {list(size)}")


class EncodeStream(_Stream):
    """Frames to latents."""

    @torch.no_grad()
    def push(self, frames: Tensor) -> Tensor:
        """The next latents [16, m, H/8, W/8] from the next `frames` [1, 3, n, H, W] in [-1, 1].

        The first call takes 1 + 4k frames for 1 + k latents, every other 4k for k. Raises ValueError for other shapes.
        """
        self._check(frames.shape)
        frames = frames.to(self._vae.conv1.weight.dtype, memory_format=self._vae.memory_format)
        encoded = self._vae.encoder(frames, self._history, self._tiles)
        self._history.at_start = False
        posterior_mean, _ = self._vae.conv1(encoded).chunk(2, dim=1)
        mean, std = self._vae.latent_scale()
        return ((posterior_mean - mean) / std).squeeze(0)

    def _check(self, shape: torch.Size) -> None:
        if len(shape) != 5 or shape[:2] != (1, 3) or any(side % PIXELS_PER_LATENT for side in shape[3:]):
            raise ValueError(f"frames are [1, 3, n, rows, columns] with sides that 8 divides, not {list(shape)}")
        lone_frames = 1 if self._history.at_start else 0
        if shape[2] == 0 or shape[2] % FRAMES_PER_LATENT != lone_frames:
            raise ValueError(f"this call takes 4k + {lone_frames} frames, not {shape[2]}")
        self._check_size(shape[3:])


class DecodeStream(_Stream):
    """Latents to frames. After the first call all calls with one latent frame have equal shapes and equal buffers."""

    def leave_out_before(self, frame: int) -> None:
        """Give only the frames from number `frame` on, and compute only what they need; until the next `reset`."""
        self._history.leave_out(self._vae.decoder.unneeded_before(frame))

    @torch.no_grad()
    def push(self, latents: Tensor) -> Tensor:
        """The next frames [1, 3, m, 8h, 8w], clamped to [-1, 1], from the next normalised `latents` [16, n, h, w].

        A stream's first latent frame gives one frame, every other four. Raises ValueError for other shapes.
        """
        if latents.dim() != 4 or latents.shape[0] != len(LATENT_MEAN) or latents.shape[1] == 0:
            raise ValueError(f"latents are [16, n, rows, columns], not {list(latents.shape)}")
        self._check_size(latents.shape[2:])
        mean, std = self._vae.latent_scale()
        raw = (latents.unsqueeze(0) * std + mean).to(
            self._vae.conv2.weight.dtype, memory_format=self._vae.memory_format
        )
        frames = self._vae.decoder(self._vae.conv2(raw), self._history, self._tiles)
        self._history.at_start = False
        return frames.clamp_(-1, 1)
