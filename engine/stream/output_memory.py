"""How long each output's sound was on its way when it was too slow, so that the next session's delay leaves room."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import cast

from engine.paths import cache_folder, open_private, private_folder
from engine.stream.timeline import CAPTURE_S

logger = logging.getLogger(__name__)

USUAL_S = 0.050
"""Of an output that nothing is known of; what the virtual microphone asks for."""

_MOST_S = 2.0
_QUEUED_S = 0.030
_RESERVE_S = 0.010
"""A session differs from the next by some ms; the same would not be told again."""


def delay_for(label: str, correction_s: float) -> float:
    """Seconds of delay with which the voice on this output, so much later than the picture, can be in time."""
    return CAPTURE_S + recall(label) + max(0.0, -correction_s) + _QUEUED_S


def recall(label: str, folder: Path | None = None) -> float:
    """Seconds from the delay line until an output's sound is heard."""
    value = _read(folder).get(label)
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= _MOST_S else USUAL_S


def remember(label: str, needed_s: float, correction_s: float, folder: Path | None = None) -> None:
    """Keep that the voice needed so much delay there; a disk that is full only costs being told again."""
    output_s = needed_s + correction_s - CAPTURE_S - _QUEUED_S + _RESERVE_S
    path = _path(folder)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        private_folder(path.parent)
        with open_private(draft) as file:
            file.write(json.dumps({**_read(folder), label: round(max(0.0, output_s), 3)}))
        os.replace(draft, path)
    except OSError as error:
        logger.warning("the delay of the sound output could not be stored in %s: %s", path, error)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _read(folder: Path | None) -> dict[str, object]:
    try:
        stored: object = json.loads(_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, object], stored) if isinstance(stored, dict) else {}


def _path(folder: Path | None) -> Path:
    return (folder or cache_folder()) / "outputs.json"
