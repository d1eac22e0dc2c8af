"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from typing import Any

from engine.errors import UsageError
from engine.generators.factory import generator_names
from engine.settings import CANVAS_SIZES, FRAME_RATES, VIRTUAL_MICROPHONE, CanvasSettings, GeneratorSettings


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Portrait, generator and canvas."""
    parser.add_argument(
        "--portrait",
        required=True,
        metavar="P",
        help="a picture of a face, or sample:ID (sample: alone is the first)",
    )
    parser.add_argument("--generator", choices=generator_names(), default="puppet", help="what animates the portrait")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the generator; may be repeated",
    )
    _add_flashtalk_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="another seed blinks and sways at other times")
    sizes = ", ".join(f"{w}x{h}" for w, h in CANVAS_SIZES)
    parser.add_argument("--canvas", default="1280x720", metavar="WxH", help=f"what others see: {sizes}")
    parser.add_argument(
        "--fill",
        choices=("blur", "solid", "crop"),
        default="blur",
        help="what surrounds a portrait of another shape",
    )
    parser.add_argument("--colour", default="#20242c", metavar="#RRGGBB", help="colour of the solid fill")
    parser.add_argument("--mirror", action="store_true", help="mirror what others see")
    parser.add_argument("--fps", type=int, default=25, choices=FRAME_RATES, help="frames a second")


def _add_flashtalk_options(parser: argparse.ArgumentParser) -> None:
    """Each is short for `--set KEY=VALUE`; a generator that does not have it says so."""
    group = parser.add_argument_group("flashtalk (the photographic generator)")
    group.add_argument(
        "--checkpoint", metavar="DIR", help="folder of SoulX-FlashTalk-14B (default: the downloaded one)"
    )
    group.add_argument(
        "--speech-encoder", metavar="DIR", help="folder of chinese-wav2vec2-base (default: beside or in the checkpoint)"
    )
    group.add_argument("--size", metavar="HxW", help="picture size in px, height x width (default: 768x448)")
    group.add_argument(
        "--steps", type=int, metavar="N", help="denoising steps, 4, 3 or 2; fewer are faster (default: 4)"
    )
    group.add_argument("--prompt", metavar="TEXT", help="what the picture shows, in words")
    group.add_argument("--device", metavar="D", help="cuda, cuda:1, cpu (default: a GPU if there is one)")
    group.add_argument(
        "--ranks", type=int, metavar="N", help="processes that share the work (default: one for each GPU)"
    )
    group.add_argument("--gpus", metavar="LIST", help="which GPUs, as 0,1 (default: one)")
    group.add_argument(
        "--ranks-at", metavar="SOCKET", help="wait there for ranks that torchrun starts (docs/worker.md)"
    )
    group.add_argument("--attention", metavar="NAME", help="attention kernel (default: the fastest that works)")


def voice_out_name(given: str) -> str:
    """The output that "default", "virtual" or a device's own name stands for, as settings have it."""
    return {"default": "", "virtual": VIRTUAL_MICROPHONE}.get(given, given)


_FLASHTALK_OPTIONS = (
    "checkpoint",
    "speech_encoder",
    "size",
    "steps",
    "prompt",
    "device",
    "ranks",
    "gpus",
    "ranks_at",
    "attention",
)


def canvas_settings(arguments: argparse.Namespace) -> CanvasSettings:
    """Raises `UsageError` for a size or colour that is not offered."""
    try:
        width, height = (int(part) for part in arguments.canvas.lower().split("x"))
    except ValueError as error:
        raise UsageError(
            f'"{arguments.canvas}" is not a canvas size.', hint="Write it as width x height: 1280x720."
        ) from error
    return CanvasSettings(
        width=width, height=height, fill=arguments.fill, colour=arguments.colour, is_mirrored=arguments.mirror
    )


def generator_settings(arguments: argparse.Namespace) -> GeneratorSettings:
    """Raises `UsageError` for an option that is not KEY=VALUE."""
    given = {name: getattr(arguments, name) for name in _FLASHTALK_OPTIONS}
    options = {name: value for name, value in given.items() if value is not None} | _options(arguments.set)
    return GeneratorSettings(name=arguments.generator, seed=arguments.seed, options=options)


def _options(pairs: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f'"{pair}" is not an option.', hint="Write it as KEY=VALUE.")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
