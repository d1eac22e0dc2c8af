"""The last recommendation, kept for the window. Private, replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from engine.paths import data_folder, open_private, private_folder

logger = logging.getLogger(__name__)


def store(recommendation: dict[str, Any], folder: Path | None = None) -> str:
    """Keep what `Recommendation.as_dict` gave; empty, or why that was not possible."""
    path = recommendation_path(folder)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        private_folder(path.parent)
        with open_private(draft) as file:
            json.dump(recommendation, file, indent=1)
        os.replace(draft, path)
    except OSError as error:
        logger.warning("the recommendation could not be stored in %s: %s", path, error)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return f"It could not be kept in {path.parent}: {error.strerror}."
    return ""


def load(folder: Path | None = None) -> dict[str, Any] | None:
    """What was kept last, as `Recommendation.as_dict` has it; None where there is nothing that can be read."""
    try:
        stored = json.loads(recommendation_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and isinstance(stored.get("best"), dict) else None


def recommendation_path(folder: Path | None = None) -> Path:
    """Where it is."""
    return (folder or data_folder()) / "recommendation.json"
