"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from engine.errors import UsageError
from engine.generators.factory import generator_names, options_help
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
    add_set(parser)
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
    add_generator_flags(group)
    group.add_argument(
        "--ranks", type=int, metavar="N", help="processes that share the work (default: one for each GPU)"
    )
    group.add_argument("--gpus", metavar="LIST", help="which GPUs, as 0,1 (default: one)")
    group.add_argument(
        "--ranks-at", metavar="SOCKET", help="wait there for ranks that torchrun starts (docs/worker.md)"
    )


def add_generator_flags(group: argparse._ArgumentGroup) -> None:
    """One for each option of FlashTalk; what is not given is None."""
    for name, sentence in options_help("flashtalk").items():
        metavar = _METAVARS.get(name, "VALUE")
        group.add_argument(flag(name), type=value_of, metavar=metavar, help=sentence.replace("%", "%%"))


def add_set(parser: argparse.ArgumentParser) -> None:
    """Options of any generator, as `given_options` reads them."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the generator; may be repeated",
    )


def flag(option: str) -> str:
    """Of a generator's option, on the command line."""
    return "--" + option.replace("_", "-")


def voice_out_name(given: str) -> str:
    """The output that "default", "virtual" or a device's own name stands for, as settings have it."""
    return {"default": "", "virtual": VIRTUAL_MICROPHONE}.get(given, given)


_METAVARS = {
    "checkpoint": "DIR", "speech_encoder": "DIR", "size": "HxW", "steps": "N", "chunk": "N", "prompt": "TEXT",
    "device": "D", "attention": "NAME", "color_match": "X",
}  # fmt: skip
_RANK_OPTIONS = ("ranks", "gpus", "ranks_at")


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
    names = (*options_help("flashtalk"), *_RANK_OPTIONS)
    return GeneratorSettings(name=arguments.generator, seed=arguments.seed, options=given_options(arguments, names))


def given_options(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that were given, and what `--set` says. Raises `UsageError` for a pair that is none."""
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None} | _options(arguments.set)


def _options(pairs: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f'"{pair}" is not an option.', hint="Write it as KEY=VALUE.")
        options[key] = value_of(value)
    return options


def value_of(text: str) -> Any:
    """What was typed, as a truth value or a number where it is one."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
