"""The loaded models, shared by all streams of a process on one device, and gone when the last of them closes."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from engine.errors import GeneratorError, ModelFilesError, UsageError
from engine.generators.base import Progress
from engine.generators.flashtalk.attention import AttentionBackend, choose_attention
from engine.generators.flashtalk.block_streaming import BlockStreamer
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.feature_cache import content_key, remember, weights_key
from engine.generators.flashtalk.image_encoder import (
    ImageEncoderConfig,
    build_image_encoder,
    encode_image,
    rename_image_encoder,
)
from engine.generators.flashtalk.kernels.catalog import FRAME_KERNELS, VAE_KERNELS, dit_kernels
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels, choose_kernels
from engine.generators.flashtalk.kernels.vae_upsample import UPSAMPLE
from engine.generators.flashtalk.memory import free_bytes
from engine.generators.flashtalk.placement import Storage, placement_for, stream_blocks
from engine.generators.flashtalk.speech_encoder import (
    SpeechEncoder,
    SpeechEncoderConfig,
    build_speech_encoder,
    rename_speech_encoder,
)
from engine.generators.flashtalk.text_encoder import (
    TextEncoderConfig,
    build_text_encoder,
    clean_prompt,
    encode_text,
    rename_text_encoder,
    tokenize,
)
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.generators.flashtalk.weights import (
    Precision,
    assign,
    cast,
    check_names,
    load_dit,
    precision_for,
    read_pth,
    read_safetensors,
)
from engine.media import Notice
from engine.model_store.checkpoint import CheckpointReport

logger = logging.getLogger(__name__)

_Sizes = TypeVar("_Sizes")

_LARGEST_FOR_CPU = 1_000_000_000
"""Parameters; above this a picture on a CPU would take minutes."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Everything that a stream steps with, on one device; nothing in it changes. Only rank 0 listens to speech."""

    dit: DiT
    vae: Vae
    speech: SpeechEncoder | None
    device: torch.device
    precision: Precision
    attention: AttentionBackend
    kernels: Kernels
    streamer: BlockStreamer | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(kw_only=True)
class _Pool:
    """Guards against loading twice: a portrait that changes while live must not double 30 GB."""

    loaded: weakref.WeakValueDictionary[tuple[str, ...], Models] = field(default_factory=weakref.WeakValueDictionary)
    lock: threading.Lock = field(default_factory=threading.Lock)


_POOL = _Pool()


def choose_device(wanted: str, parameters: int) -> torch.device:
    """The device called `wanted` ("auto", "cuda", "cuda:1", "cpu") for a model of that size.

    Raises `UsageError` for a name that is none, `GeneratorError` where there is no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if parameters > _LARGEST_FOR_CPU:
            raise GeneratorError(
                "FlashTalk needs an NVIDIA GPU, and none can be used here.",
                code="flashtalk.no_cuda",
                hint="Choose the puppet, or install the NVIDIA driver and a CUDA build of torch.",
            )
        return torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f'"{wanted}" is not a device.', hint="Say auto, cuda, cuda:1 or cpu.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GeneratorError(
            f"There is no CUDA device {wanted} here.",
            code="flashtalk.no_cuda",
            hint="`standin doctor` says what is missing; the puppet needs no GPU.",
        )
    return device


def load_models(
    report: CheckpointReport,
    device: torch.device,
    attention: str,
    progress: Progress,
    *,
    rank: int = 0,
    kernels: str = "auto",
    storage: Storage | None = None,
) -> Models:
    """The models of a checkpoint on `device`, loaded unless another stream has them. Raises `ModelFilesError`."""
    storage = storage or Storage()
    key = _key(report, device, attention, kernels, storage)
    with _POOL.lock:
        models = _POOL.loaded.get(key)
        if models is None:
            models = _load(report, device, attention, progress, rank, kernels, storage)
            _POOL.loaded[key] = models
        return models


def are_loaded(
    report: CheckpointReport,
    device: torch.device,
    attention: str,
    kernels: str = "auto",
    storage: Storage | None = None,
) -> bool:
    """Whether another stream has these models already."""
    return _key(report, device, attention, kernels, storage or Storage()) in _POOL.loaded


def _key(
    report: CheckpointReport, device: torch.device, attention: str, kernels: str, storage: Storage
) -> tuple[str, ...]:
    folders = (str(report.directory.resolve()), str(report.speech_directory))
    return (*folders, str(device), attention, kernels, storage.precision, storage.offload)


def _load(
    report: CheckpointReport,
    device: torch.device,
    attention: str,
    progress: Progress,
    rank: int,
    kernels: str,
    storage: Storage,
) -> Models:
    precision = precision_for(device, storage.precision)
    backend = choose_attention(device, precision.dit, attention)
    logger.info("FlashTalk runs on %s in %s with %s attention", device, precision.dit, backend.label)
    every = (*dit_kernels(storage.scheme), *VAE_KERNELS, *FRAME_KERNELS)
    chosen = choose_kernels(every, kernels, device, precision.dit)
    progress.update("video autoencoder", 0, 1)
    vae = load_vae(report.vae, device, precision.vae, chosen)
    speech = None
    if rank == 0:
        progress.update("speech encoder", 0, 1)
        speech = load_speech_encoder(report.speech_directory, report.speech_weights, device)
    config = DiTConfig.from_dict(report.config)
    notices: list[Notice] = []
    placement = placement_for(storage, config, device, precision.dit, rank, notices)
    dit = load_dit(config, report.transformer_files, device, precision.dit, progress, placement)
    streamer = stream_blocks(dit, placement, device, storage)
    if streamer is None:
        dit.pack_projections()
    dit.use_kernels(chosen)
    return Models(
        dit=dit,
        vae=vae,
        speech=speech,
        device=device,
        precision=precision,
        attention=backend,
        kernels=chosen,
        streamer=streamer,
        notices=tuple(notices),
    )


def load_vae(path: Path, device: torch.device, dtype: torch.dtype, kernels: Kernels = EAGER) -> Vae:
    """The video autoencoder. Raises `ModelFilesError`."""
    state = read_pth(path)
    first = state.get("encoder.conv1.weight")
    with torch.device("meta"):
        vae = Vae(VaeConfig(dim=VaeConfig().dim if first is None else len(first)))
    check_names(vae.state_dict(), state, path)
    assign(vae, cast(state, device, dtype))
    if device.type == "cuda":
        vae.use_channels_last()
    if device.type == "cpu" or UPSAMPLE in kernels:  # twice as fast on a CPU, and nobody has seen it on a GPU
        vae.merge_upsampling(state)
    vae.use_kernels(kernels)
    return vae


def load_speech_encoder(folder: Path, weights: Path, device: torch.device) -> SpeechEncoder:
    """The speech encoder, in float32. Raises `ModelFilesError`."""
    model = build_speech_encoder(SpeechEncoderConfig.from_directory(folder))
    state = read_safetensors(weights) if weights.suffix == ".safetensors" else read_pth(weights)
    try:
        renamed = rename_speech_encoder(state)
    except KeyError as error:
        raise ModelFilesError(
            f"The weights in {weights} are not those of a wav2vec2 speech encoder: {error.args[0]} is missing.",
            code="model_files.wrong_weights",
            hint="Choose the folder of chinese-wav2vec2-base.",
        ) from error
    check_names(model.state_dict(), renamed, weights)
    assign(model, cast(renamed, device, torch.float32))
    return model


def text_key(report: CheckpointReport, prompt: str, device: torch.device) -> str:
    """Of everything that makes text features."""
    text_len, dtype = DiTConfig.from_dict(report.config).text_len, precision_for(device).text
    words = [weights_key(path) for path in sorted(report.tokenizer.iterdir()) if path.is_file()]
    return content_key(
        "text", clean_prompt(prompt), weights_key(report.text_encoder), *words, str(text_len), str(dtype)
    )


def text_features(report: CheckpointReport, prompt: str, device: torch.device, progress: Progress) -> Tensor:
    """Features [n, text_dim] of the prompt on the host, from the last time or from the text encoder, loaded for it."""
    dtype = precision_for(device).text
    text_len = DiTConfig.from_dict(report.config).text_len

    def encode() -> Tensor:
        progress.update("text encoder", 0, 1)
        ids, mask = tokenize(report.tokenizer, prompt, text_len)
        state = read_pth(report.text_encoder)
        model = build_text_encoder(_sizes(TextEncoderConfig.of, state, report.text_encoder))
        renamed = _renamed(rename_text_encoder, state, report.text_encoder)
        check_names(model.state_dict(), renamed, report.text_encoder)
        assign(model, cast(renamed, _with_room(report.text_encoder, renamed, dtype, device), dtype))
        progress.update("text encoder", 1, 1)
        return encode_text(model, ids, mask)

    return remember(text_key(report, prompt, device), encode)


def image_key(report: CheckpointReport, size: tuple[int, int], digest: str, device: torch.device) -> str:
    """Of everything that makes image features: `size` is height and width of the cropped portrait."""
    weights, dtype = weights_key(report.image_encoder), precision_for(device).image
    return content_key("image", digest, f"{size[0]}x{size[1]}", weights, str(dtype))


def image_features(
    report: CheckpointReport, portrait: Tensor, digest: str, device: torch.device, progress: Progress
) -> Tensor:
    """Features [1, 257, width] of the cropped portrait [1, 3, 1, H, W] on the host; like `text_features`."""
    dtype, (height, width) = precision_for(device).image, portrait.shape[-2:]

    def encode() -> Tensor:
        progress.update("image encoder", 0, 1)
        state = read_pth(report.image_encoder)
        config = _sizes(ImageEncoderConfig.of, state, report.image_encoder)
        model = build_image_encoder(config)
        renamed = _renamed(lambda table: rename_image_encoder(table, config), state, report.image_encoder)
        check_names(model.state_dict(), renamed, report.image_encoder)
        assign(model, cast(renamed, _with_room(report.image_encoder, renamed, dtype, device), dtype))
        progress.update("image encoder", 1, 1)
        return encode_image(model, portrait)

    return remember(image_key(report, (height, width), digest, device), encode)


def _with_room(path: Path, state: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> torch.device:
    """`device`, or the CPU where the weights `state` of that file in `dtype`, and a tenth more to work with, have no
    room there."""
    free = free_bytes(device)
    if free is None or 1.1 * dtype.itemsize * sum(tensor.numel() for tensor in state.values()) <= free:
        return device
    logger.warning("the encoder in %s has no room on %s and runs on the CPU, once", path.name, device)
    return torch.device("cpu")


def _sizes(sizes_of: Callable[[dict[str, Tensor]], _Sizes], state: dict[str, Tensor], path: Path) -> _Sizes:
    try:
        return sizes_of(state)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"The weights in {path} are not those of this model.",
            code="model_files.wrong_weights",
            hint="Check with `standin models verify`, or choose the folder of SoulX-FlashTalk-14B.",
            detail=error.detail,
        ) from error


def _renamed(rename, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    try:
        return rename(state)
    except KeyError as error:
        raise ModelFilesError(
            f"The weights in {path} are not those of this model: {error.args[0]} does not belong there.",
            code="model_files.wrong_weights",
            hint="Check with `standin models verify`, or choose the folder of SoulX-FlashTalk-14B.",
        ) from error
