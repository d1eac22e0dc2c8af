"""Models with random weights at any size: all that speed and memory depend on, where no checkpoint is at hand.

What makes conditions only (a quarter of the published parameters) is zeros on the host, which take no memory there;
keys of text and portrait are then their biases, and a step takes as long as with any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.kernels.catalog import VAE_KERNELS, dit_kernels
from engine.generators.flashtalk.kernels.registry import choose_kernels
from engine.generators.flashtalk.kernels.vae_upsample import UPSAMPLE
from engine.generators.flashtalk.memory import Demand, free_bytes, streamed_blocks
from engine.generators.flashtalk.models import Models
from engine.generators.flashtalk.options import FlashTalkOptions
from engine.generators.flashtalk.placement import Storage, placement_for, stream_blocks
from engine.generators.flashtalk.quantization.linear import is_quantized, is_streamed, prepare_quantized
from engine.generators.flashtalk.quantization.scheme import quantize_weight
from engine.generators.flashtalk.speech_encoder import SpeechEncoderConfig, build_speech_encoder
from engine.generators.flashtalk.transformer import DiT, is_set_up_only
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.generators.flashtalk.weights import Placement, assign, precision_for
from engine.media import Notice

TEXT_TOKENS, IMAGE_TOKENS = 24, 257
"""Of the published prompt, and of any portrait."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the models; the published ones by default."""

    config: DiTConfig = field(default_factory=DiTConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)


def random_models(options: FlashTalkOptions, device: torch.device, sizes: Sizes | None = None) -> Models:
    """As `load_models` makes them from files with these options, by default at the published sizes.

    Raises `GeneratorError` where there is no room for them on `device`, `UsageError` for an attention that is none.
    """
    sizes = sizes or Sizes()
    config = sizes.config
    precision = precision_for(device, options.precision)
    storage = _storage(options, config, device)
    kernels = choose_kernels((*dit_kernels(storage.scheme), *VAE_KERNELS), options.kernels, device, precision.dit)
    notices: list[Notice] = []
    placement = placement_for(storage, config, device, precision.dit, 0, notices)
    dit = _random_dit(config, device, precision.dit, placement)
    streamer = stream_blocks(dit, placement, device, storage)
    if streamer is None:
        dit.pack_projections()
    dit.use_kernels(kernels)
    pictures = _filled(lambda: Vae(sizes.vae), device, precision.vae)
    if device.type == "cuda":
        pictures.use_channels_last()
    if UPSAMPLE in kernels:
        pictures.merge_upsampling()
    pictures.use_kernels(kernels)
    return Models(
        dit=dit,
        vae=pictures,
        speech=_filled(lambda: build_speech_encoder(sizes.speech), device, torch.float32),
        device=device,
        precision=precision,
        attention=choose_attention(device, precision.dit, options.attention),
        kernels=kernels,
        streamer=streamer,
        notices=tuple(notices),
    )


def random_features(config: DiTConfig, shape: StreamShape, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(portrait [1, 3, 1, H, W] in [-1, 1], text features, image features) for `FlashTalkGenerator.prepare_from`."""
    return (
        torch.rand(1, 3, 1, shape.height, shape.width, device=device) * 2 - 1,
        torch.zeros(TEXT_TOKENS, config.text_dim, device=device),
        torch.zeros(1, IMAGE_TOKENS, config.img_emb_in_dim, device=device),
    )


def _storage(options: FlashTalkOptions, config: DiTConfig, device: torch.device) -> Storage:
    wanted = Storage(precision=options.precision, offload=options.offload)
    demand = Demand(
        config=config,
        shape=options.shape,
        precision=precision_for(device, options.precision),
        scheme=wanted.scheme,
        world=1,
    )
    streamed = streamed_blocks(demand, free_bytes(device), options.offload)
    return Storage(precision=options.precision, offload=options.offload, streamed=streamed)


def _random_dit(config: DiTConfig, device: torch.device, dtype: torch.dtype, placement: Placement) -> DiT:
    with torch.device("meta"):
        dit = DiT(config)
    expected = dit.state_dict()
    if placement.scheme is not None:
        prepare_quantized(dit, placement.scheme, placement.product)
    state: dict[str, Tensor] = {}
    for name, tensor in expected.items():
        if is_set_up_only(name):
            state[name] = torch.zeros(tensor.shape, dtype=dtype)
            continue
        is_on_host = is_streamed(name) and int(name.split(".")[1]) in placement.streamed
        value = _random_like(tensor, device, dtype)
        there = torch.device("cpu") if is_on_host else device
        if placement.scheme is not None and is_quantized(name, tensor.shape):
            base = name.removesuffix(".weight")
            quantized, scale = quantize_weight(value, placement.scheme)
            state[f"{base}.quantized"], state[f"{base}.scale"] = quantized.to(there), scale.to(device)
        else:
            state[name] = value.to(there)
    assign(dit, state)
    dit.head.head.to(torch.promote_types(dtype, torch.float32))
    return dit


def _filled(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype):
    with torch.device("meta"):
        module = build()
    assign(module, dict(_random_state(module, device, dtype)))
    return module


def _random_state(module: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in module.state_dict().items():
        is_number = tensor.is_floating_point()
        yield name, _random_like(tensor, device, dtype) if is_number else torch.zeros_like(tensor, device=device)


def _random_like(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights that keep the size of what goes through."""
    fan_in = tensor[0].numel() if tensor.dim() > 1 else 0
    value = torch.empty(tensor.shape, device=device, dtype=dtype)
    return value.normal_(0.0 if fan_in else 1.0, fan_in**-0.5 if fan_in else 0.1)
