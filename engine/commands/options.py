"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from typing import Any

from engine.errors import UsageError
from engine.generators.factory import generator_names
from engine.settings import CANVAS_SIZES, FRAME_RATES, CanvasSettings, GeneratorSettings


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
    return GeneratorSettings(name=arguments.generator, seed=arguments.seed, options=_options(arguments.set))


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
