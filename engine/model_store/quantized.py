"""Where 8-bit copies of models' weights are kept, and how to look at and remove them. Without torch."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from engine.paths import cache_folder

PRECISIONS = ("fp8", "int8")
_NAME = re.compile(r"[0-9a-f]+-([a-z0-9]+)-v\d+(\.[0-9a-f-]+)?")
"""<what is in the checkpoint>-<precision>-v<version>, of a draft with the writer's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedCopy:
    """One file: `precision` is one of `PRECISIONS`, or "?" for a name of another kind. `is_whole`: it is not a draft
    that is being written, or was left by a writer that was killed."""

    path: Path
    precision: str
    size_bytes: int
    is_whole: bool = True


def quantized_folder() -> Path:
    """In the user's cache: all of it can be made again from the checkpoint."""
    return cache_folder() / "flashtalk-8bit"


def quantized_copies(folder: Path | None = None) -> list[QuantizedCopy]:
    """What is there, by name: whole ones, then drafts."""
    where = folder or quantized_folder()
    copies = []
    for path in [*sorted(where.glob("*.safetensors")), *sorted(where.glob("*.tmp"))]:
        with contextlib.suppress(OSError):  # another process was faster
            found = _NAME.fullmatch(path.stem)
            precision = found[1] if found and found[1] in PRECISIONS else "?"
            is_whole = path.suffix != ".tmp"
            size = path.stat().st_size
            copies.append(QuantizedCopy(path=path, precision=precision, size_bytes=size, is_whole=is_whole))
    return copies


def remove_quantized_copies(folder: Path | None = None, precision: str | None = None) -> int:
    """Delete them, or those of one precision, with what broken-off writing has left; the bytes that became free. A
    start that is writing one goes on without it. Raises `OSError`, on Windows also while one is in use."""
    freed = 0
    for copy in quantized_copies(folder):
        if precision in (None, copy.precision):
            copy.path.unlink(missing_ok=True)
            freed += copy.size_bytes
    return freed
