"""What can be chosen of FlashTalk, and where its files are: known at once, and without torch.

An option is one line of `FlashTalkOptions`: its name, default, check and a sentence of help. A check takes what was
typed as KEY=VALUE, which may be of any type, and returns the value or raises `UsageError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from engine.errors import UsageError
from engine.generators.base import GeneratorSpec
from engine.generators.flashtalk.config import StreamShape
from engine.media import ChunkSpec
from engine.model_store.catalog import CHINESE_WAV2VEC2, FLASHTALK
from engine.model_store.checkpoint import CheckpointReport, inspect_checkpoint
from engine.model_store.store import ModelStore
from engine.paths import expanded

SIZES = ((768, 448), (448, 768), (640, 384), (384, 640), (512, 512), (512, 320), (320, 512))
"""Offered picture sizes (height, width), the model's own first."""
STEPS = (4, 3, 2)
AUTO = "auto"
CHUNKS = (33, 21, 17)
"""Frames of a chunk, the five repeated ones included; the model was made with 33."""
PROMPT = "A person is talking. Only the foreground characters are moving, the background remains static."
"""The prompt that the model is published with."""
FPS = 25

_Class = TypeVar("_Class", bound=type)


def _option(default: Any, check: Callable[[Any], Any], help: str) -> Any:
    return field(default=default, metadata={"check": check, "help": help})


def _text(value: Any) -> str:
    """Any words; a folder may be called 5."""
    return str(value)


def _fps(value: Any) -> int:
    if value != FPS:
        raise UsageError(f"FlashTalk makes {FPS} frames a second, not {value}.", hint=f"Choose {FPS}.")
    return FPS


def _size(value: Any) -> str:
    if re.fullmatch(r"(\d{2,4})x(\d{2,4})", str(value)) is None:
        offered = ", ".join(f"{height}x{width}" for height, width in SIZES)
        raise UsageError(f'"{value}" is not a picture size.', hint=f"Say height x width, such as one of: {offered}.")
    return str(value)


def _steps(value: Any) -> int | str:
    if value == AUTO:
        return AUTO
    if value not in STEPS:
        raise UsageError(f"FlashTalk cannot work in {value} steps.", hint="Choose 4, 3, 2 or auto.")
    return int(value)


def _chunk(value: Any) -> int:
    if value not in CHUNKS:
        raise UsageError(f"FlashTalk cannot make chunks of {value} frames.", hint="Choose 33, 21 or 17.")
    return int(value)


def _color_match(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise UsageError(f"A colour match of {value} is not possible.", hint="Choose 0 to 1.")
    return float(value)


def _motion_context(value: Any) -> int:
    if value not in (0, *range(2, 10)):
        raise UsageError(f"A motion context of {value} is not possible.", hint="Choose 2 to 9, or 0 for all.")
    return int(value)


def _offload(value: Any) -> str:
    if re.fullmatch(r"auto|none|\d{1,3}", str(value)) is None:
        raise UsageError(f'"{value}" is not a choice of offload.', hint="Say auto, none, or how many blocks stay.")
    return str(value)


def _device(value: Any) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)) is None:
        raise UsageError(f'"{value}" is not a device.', hint="Say auto, cuda, cuda:1 or cpu.")
    return str(value)


def one_of(what: str, *choices: str) -> Callable[[Any], str]:
    """A check for an option that is one of a few words; on and off may come as true and false."""

    def check(value: Any) -> str:
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        if word not in choices:
            raise UsageError(f'"{value}" is not a {what}.', hint=f"Choose one of: {', '.join(choices)}.")
        return word

    return check


@dataclass(frozen=True, kw_only=True)
class FlashTalkOptions:
    """All that can be chosen of one stream, checked: make it with `of`. The same on every rank; JSON as `asdict`."""

    fps: int = _option(FPS, _fps, "frames a second; the model knows 25 only")
    checkpoint: str = _option("", _text, "folder of SoulX-FlashTalk-14B (default: the downloaded one)")
    speech_encoder: str = _option("", _text, "folder of chinese-wav2vec2-base (default: beside or in the checkpoint)")
    size: str = _option("768x448", _size, "picture size in px, height x width")
    steps: int | str = _option(
        4, _steps, "denoising steps, 4, 3 or 2; fewer are faster; auto: as many as the sound of a chunk needs"
    )
    chunk: int = _option(33, _chunk, "frames made at once, 33, 21 or 17; fewer are sooner, and each costs more")
    prompt: str = _option(PROMPT, _text, "what the picture shows, in words")
    device: str = _option("auto", _device, "cuda, cuda:1, cpu (default: a GPU if there is one)")
    attention: str = _option("auto", _text, "attention kernel (default: the fastest that works)")
    kernels: str = _option(
        "auto",
        one_of("choice of fused kernels", "auto", "all", "none", "compile"),
        "fused kernels: all that pass their check, none, or by torch.compile (default: those proven on a GPU)",
    )
    graphs: str = _option(
        "auto",
        one_of("setting for CUDA graphs", "auto", "on", "off"),
        "steps and decoding from CUDA graphs, on or off (default: where proven on a GPU)",
    )
    precision: str = _option(
        "auto",
        one_of("precision", "auto", "bf16", "fp16", "fp32", "fp8", "int8"),
        "of the weights; fp8 (error of a layer 3.7 %) and int8 (1.3 %) need half the memory and are faster where the "
        "GPU has such products (default: bf16, on a CPU fp32)",
    )
    offload: str = _option(
        "auto",
        _offload,
        "weights brought from the computer's memory at every step: none, or how many of the 40 blocks stay on the GPU "
        "(default: all that have room)",
    )
    decoder: str = _option(
        "vae",
        one_of("decoder", "vae", "small"),
        "what makes pixels; small: a hundredth of the work, slightly different pictures (needs decoder_weights)",
    )
    decoder_weights: str = _option("", _text, "file of the small decoder, taew2_1.safetensors or taew2_1.pth")
    motion_context: int = _option(
        0,
        _motion_context,
        "with the small decoder, latent frames that the VAE decodes for the next chunk, 2 to 9; fewer are faster and "
        "less exact (default: all, which is exact)",
    )
    color_match: float = _option(1.0, _color_match, "how far frames get the portrait's colours, 0 to 1")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FlashTalkOptions:
        """From values of any type; None is the default. Raises `UsageError` for what is not offered."""
        known = {item.name: item for item in fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(f'FlashTalk has no option "{name}".', hint=f"It has: {', '.join(sorted(known))}.")
        given = {name: value for name, value in values.items() if value is not None}
        options = cls(**{name: known[name].metadata["check"](value) for name, value in given.items()})
        _ = options.shape
        if options.decoder == "small" and not options.decoder_weights:
            raise UsageError("The small decoder has no weights.", hint="Give its file with decoder_weights.")
        return options

    @property
    def shape(self) -> StreamShape:
        """The picture and the chunks that these options make. Raises `UsageError` for sides that cannot be."""
        height, width = map(int, self.size.split("x"))
        return StreamShape(height=height, width=width, frames=self.chunk, fps=self.fps)

    @property
    def spec(self) -> GeneratorSpec:
        """What the pipeline is told. A chunk may be made in each of the smaller numbers of steps."""
        shape = self.shape
        return GeneratorSpec(
            name="flashtalk",
            width=shape.width,
            height=shape.height,
            chunk=ChunkSpec(fps=shape.fps, frames=shape.new_frames),
            follows_canvas=False,
            economies=tuple(f"{'at most ' * self.is_adaptive}{steps} steps" for steps in self.step_counts[1:]),
        )

    @property
    def step_counts(self) -> tuple[int, ...]:
        """Denoising steps of a chunk by its economy, the most first."""
        return STEPS if self.steps == AUTO else STEPS[STEPS.index(int(self.steps)) :]

    @property
    def is_adaptive(self) -> bool:
        """Whether the sound of a chunk decides on its steps."""
        return self.steps == AUTO

    @property
    def folders(self) -> tuple[str, str]:
        """Checkpoint and speech encoder, as `find_checkpoint` takes them."""
        return self.checkpoint, self.speech_encoder

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, without the rate, which generators take apart from their options."""
        return {name: value for name, value in asdict(self).items() if name != "fps"}


def options_help() -> dict[str, str]:
    """Option -> what it is for, in the order in which people want them."""
    return {item.name: item.metadata["help"] for item in fields(FlashTalkOptions) if item.name != "fps"}


def takes_flashtalk_options(kind: _Class) -> _Class:
    """A class whose `__init__` ends in `**options` shows every option in its signature, as callers look for them."""
    own = [item for item in signature(kind.__init__).parameters.values() if item.kind is Parameter.KEYWORD_ONLY]
    names = {item.name for item in own}
    added = [
        Parameter(item.name, Parameter.KEYWORD_ONLY, default=item.default)
        for item in fields(FlashTalkOptions)
        if item.name not in names
    ]
    kind.__signature__ = Signature([*own, *added])
    return kind


def find_checkpoint(checkpoint: str, speech_encoder: str) -> CheckpointReport:
    """The files in these folders; without them, the model store's. Raises `ModelFilesError`."""
    if not checkpoint:
        store = ModelStore()
        checkpoint = str(store.path(FLASHTALK.name))
        speech_encoder = speech_encoder or str(store.path(CHINESE_WAV2VEC2.name))
    elif not speech_encoder:
        # Beside or in the checkpoint comes first; the store's is for a checkpoint that has none.
        report = inspect_checkpoint(expanded(checkpoint), needs_speech=False)
        stored = ModelStore().state(CHINESE_WAV2VEC2.name).path
        if report.speech_directory is None and stored is not None:
            speech_encoder = str(stored)
    speech = expanded(speech_encoder) if speech_encoder else None
    return inspect_checkpoint(expanded(checkpoint), speech)
