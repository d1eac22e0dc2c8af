"""By how much each output's voice has to be moved, as the last sync test found, kept with the user's data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

from engine.audio.devices import find_device
from engine.errors import StandinError
from engine.paths import data_folder, write_private
from engine.settings import VIRTUAL_MICROPHONE

logger = logging.getLogger(__name__)

MOST_MS = 300.0
"""More than that is no device's delay, but something that is wrong."""


def opened_output(name: str, host_api: str) -> tuple[str, str]:
    """Name and host API of the output that these mean now; themselves for the virtual one, and where none is there.

    Corrections belong to a device: its name may have been typed without a host API, and the default changes.
    """
    if name == VIRTUAL_MICROPHONE:
        return name, ""
    try:
        _, device = find_device("output", name, host_api)
    except StandinError:
        return name, host_api
    return device.name, device.host_api


def recall_ms(name: str, host_api: str) -> float:
    """The correction for an opened output in ms, above 0 later; 0 for one that has not been tested."""
    stored = _read()
    # Before, names were kept as typed. "/" was the default, whichever that was then.
    keys = [_key(name, host_api), _key(name, "")] if name else []
    values = (stored[key] for key in keys if key in stored)
    value = next(values, None)
    return float(value) if isinstance(value, (int, float)) and abs(value) <= MOST_MS else 0.0


def remember_ms(name: str, host_api: str, offset_ms: float) -> None:
    """Keep an opened output's correction. Raises `OSError` if it cannot be written."""
    write_private(_path(), json.dumps({**_read(), _key(name, host_api): round(offset_ms, 1)}))


def _read() -> dict[str, object]:
    try:
        stored: object = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, object], stored) if isinstance(stored, dict) else {}


def _path() -> Path:
    return data_folder() / "sync.json"


def _key(name: str, host_api: str) -> str:
    return f"{host_api}/{name}"
