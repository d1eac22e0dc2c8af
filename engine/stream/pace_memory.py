"""How long each generator took to its first frame the last time, so that the next session's delay fits at once."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import cast

from engine.paths import cache_folder, write_private
from engine.settings import GeneratorSettings

logger = logging.getLogger(__name__)


def recall(settings: GeneratorSettings, folder: Path | None = None) -> float | None:
    """Seconds to the first frame with these settings, as last measured."""
    try:
        value = _read(folder)[_key(settings)]
    except KeyError:
        return None
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 60 else None


def remember(settings: GeneratorSettings, first_frame_s: float, folder: Path | None = None) -> None:
    """Keep a measurement; a disk that is full only costs a longer delay the next time."""
    path = _path(folder)
    try:
        write_private(path, json.dumps({**_read(folder), _key(settings): round(first_frame_s, 3)}))
    except OSError as error:
        logger.warning("the generator's pace could not be stored in %s: %s", path, error)


def _read(folder: Path | None) -> dict[str, object]:
    try:
        stored: object = json.loads(_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, object], stored) if isinstance(stored, dict) else {}


def _path(folder: Path | None) -> Path:
    return (folder or cache_folder()) / "pace.json"


def _key(settings: GeneratorSettings) -> str:
    text = json.dumps([settings.name, settings.options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
