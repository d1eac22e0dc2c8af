"""The picture shown now, as a PNG file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.paths import expanded
from engine.sinks.files import check_writable, output_error


def write_snapshot(image: np.ndarray, path: str | Path, *, may_replace: bool = False) -> Path:
    """Write RGB uint8 (height, width, 3) to `path`, whole or not at all. Raises `OutputError`."""
    target = expanded(path)
    check_writable(target, may_replace=may_replace)
    note = PngInfo()
    note.add_text("Comment", "AI avatar made with Standin")
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(image).save(draft, format="PNG", pnginfo=note)
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise output_error(target, error) from error
    return target
