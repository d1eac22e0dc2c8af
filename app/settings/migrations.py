"""Brings settings of older versions up to date, one step per version."""

from __future__ import annotations

from collections.abc import Callable

from app.settings.schema import VERSION

_STEPS: dict[int, Callable[[dict[str, object]], dict[str, object]]] = {}
"""Version -> what turns values of that version into those of the next."""


def migrate(values: dict[str, object]) -> dict[str, object]:
    """Values of the current version; ValueError for a version that is none or lies in the future."""
    version = values.get("version", VERSION)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(f"settings of version {version} are not known")
    for step in range(version, VERSION):
        values = _STEPS[step](values)
    return values
