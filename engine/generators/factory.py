"""The registry of generators: the only place outside their own folders that knows which ones exist."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from engine.errors import UsageError
from engine.generators.base import Generator

_GENERATORS = {"puppet": "engine.generators.puppet.generator:PuppetGenerator"}


def generator_names() -> tuple[str, ...]:
    """Names that `create_generator` takes, the default first."""
    return tuple(_GENERATORS)


def create_generator(name: str, *, seed: int = 0, options: dict[str, Any] | None = None) -> Generator:
    """A new generator, imported only now. Raises `UsageError` for a name or an option that it does not know."""
    if name not in _GENERATORS:
        raise UsageError(f'There is no generator "{name}".', hint=f"Choose one of: {', '.join(_GENERATORS)}.")
    module_name, class_name = _GENERATORS[name].split(":")
    kind = getattr(import_module(module_name), class_name)
    return cast(Generator, kind(seed=seed, **(options or {})))
