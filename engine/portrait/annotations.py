"""What a generator keeps with a portrait between runs, keyed by the picture's own bytes."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from engine.errors import OutputError
from engine.paths import annotations_folder, open_private, private_folder

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")


def load_annotations(digest: str, folder: Path | None = None) -> dict[str, str]:
    """Generator name -> text, for the portrait whose file has SHA-256 `digest`; empty if there is nothing."""
    base = folder or annotations_folder()
    found = {}
    for path in sorted(base.glob(f"{_checked(digest)}.*.json")) if base.is_dir() else ():
        try:
            found[path.name.split(".")[1]] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("%s cannot be read and is ignored: %s", path, error)
    return found


def store_annotation(digest: str, generator: str, text: str, folder: Path | None = None) -> None:
    """Keep `text` (JSON) for `generator`, replacing what was there; empty text removes it. Raises `OutputError`."""
    base = folder or annotations_folder()
    path = base / f"{_checked(digest)}.{generator}.json"
    try:
        if not text:
            path.unlink(missing_ok=True)
            return
        private_folder(base)
        # Written beside and moved, so that a full disk or a crash leaves the old one whole.
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with open_private(draft) as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"The face adjustments could not be stored in {base}: {error.strerror or error}.",
            code="output.annotations",
            hint="Check the free space and the permissions of that folder.",
        ) from error


def _checked(digest: str) -> str:
    assert _DIGEST.fullmatch(digest), digest
    return digest
