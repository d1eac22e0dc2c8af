"""The registry of generators: the only place outside their own folders that knows which ones exist."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, cast

from engine.errors import GeneratorError, UsageError
from engine.generators.base import Generator, PortraitDescription, Progress, SmallerSize
from engine.media import Portrait

_GENERATORS = {
    "puppet": "engine.generators.puppet.generator:PuppetGenerator",
    "flashtalk": "engine.worker.flashtalk:RankedFlashTalk",
}
_STANDBY = {"flashtalk": "puppet"}
"""What is shown while a generator loads, and when it has failed: one that is ready at once and cannot."""

_STAGE_BENCHES = {"flashtalk": "engine.generators.flashtalk.bench"}

_PROBES = {"flashtalk": "engine.generators.flashtalk.probe"}

_OPTIONS = {"flashtalk": "engine.generators.flashtalk.options"}

_SMALLER = {"flashtalk": "engine.worker.smaller"}
_HALF = SmallerSize(name="half the size", cost=0.35, room=0.5)
"""Of a generator that fills the room it is given; a quarter of the pixels, and what does not depend on them."""

_HANDLES_OF = "puppet"
_DESCRIBE = "engine.generators.puppet.describe"
"""The generator whose face handles a window shows and stores: the one that everybody can run."""


def generator_names() -> tuple[str, ...]:
    """Names that `create_generator` takes, the default first."""
    return tuple(_GENERATORS)


def create_generator(name: str, *, seed: int = 0, fps: int = 25, options: dict[str, Any] | None = None) -> Generator:
    """A new generator, imported only now. `fps` is wanted; one that has a fixed rate says so in its spec.

    Raises `UsageError` for a name or an option that it does not know, `GeneratorError` without its libraries.
    """
    if name not in _GENERATORS:
        raise UsageError(f'There is no generator "{name}".', hint=f"Choose one of: {', '.join(_GENERATORS)}.")
    kind = _imported(name)
    allowed = set(signature(kind).parameters) - {"seed", "fps"}
    for option in options or {}:
        if option not in allowed:
            choices = ", ".join(sorted(allowed)) or "none"
            raise UsageError(f'The generator {name} has no option "{option}".', hint=f"It has: {choices}.")
    return cast(Generator, kind(seed=seed, fps=fps, **(options or {})))


def stage_bench_of(name: str) -> Callable[[dict[str, Any], Progress], dict[str, Any]] | None:
    """What measures the stages of generator `name` (settings, progress -> report), if it does that itself."""
    if name not in _STAGE_BENCHES:
        return None
    module = _module(name, _STAGE_BENCHES[name])
    return lambda settings, progress: module.bench(module.BenchSettings(**settings), progress)


def probe_of(name: str) -> Any:
    """What says how fast generator `name` would be with each of its settings: a module with `probe` and `measured`."""
    return _module(name, _PROBES[name])


def options_help(name: str) -> dict[str, str]:
    """Option -> what it is for, of a generator that says so; its libraries are not needed for that."""
    return _module(name, _OPTIONS[name]).options_help() if name in _OPTIONS else {}


def standby_for(name: str) -> str | None:
    """The generator that stands in for `name`, if it has one."""
    return _STANDBY.get(name)


def smaller_sizes(name: str, options: dict[str, Any], *, follows_canvas: bool) -> list[SmallerSize]:
    """What generator `name` could make with less work than with `options`, largest first."""
    if name in _SMALLER:
        return _module(name, _SMALLER[name]).smaller_sizes(options)
    return [_HALF] if follows_canvas else []


def _imported(name: str) -> Any:
    module_name, class_name = _GENERATORS[name].split(":")
    return getattr(_module(name, module_name), class_name)


def _module(name: str, module_name: str) -> Any:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        raise GeneratorError(
            f"The generator {name} needs the library {error.name}, which is not installed.",
            code="generator.not_installed",
            hint='Install it with: pip install "standin[gpu]".',
        ) from error


def describe_portrait(portrait: Portrait) -> PortraitDescription:
    """What can be made of a portrait, without preparing a generator; takes about half a second."""
    return import_module(_DESCRIBE).describe(portrait)


def handles_text(portrait: Portrait, handles: dict[str, tuple[float, float]]) -> tuple[str, str]:
    """(generator name, text to store with the portrait) for hand-placed handles; empty text removes them.

    Raises `PortraitError` where they cannot be a face.
    """
    return _HANDLES_OF, import_module(_DESCRIBE).annotation_of_handles(portrait, handles)
