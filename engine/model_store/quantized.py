"""Where 8-bit copies of models' weights are kept, and how to look at and remove them. Without torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from engine.paths import cache_folder


@dataclass(frozen=True, kw_only=True)
class QuantizedCopy:
    """One file: `scheme` is fp8 or int8."""

    path: Path
    scheme: str
    size_bytes: int


def quantized_folder() -> Path:
    """In the user's cache: all of it can be made again from the checkpoint."""
    return cache_folder() / "flashtalk-8bit"


def quantized_copies(folder: Path | None = None) -> list[QuantizedCopy]:
    """What is there, by name."""
    copies = []
    for path in sorted((folder or quantized_folder()).glob("*.safetensors")):
        with contextlib.suppress(OSError):
            scheme = path.stem.split("-")[1] if "-" in path.stem else "?"
            copies.append(QuantizedCopy(path=path, scheme=scheme, size_bytes=path.stat().st_size))
    return copies


def remove_quantized_copies(folder: Path | None = None) -> int:
    """Delete them and what broken-off writing has left; the bytes that became free. Raises `OSError`."""
    freed = 0
    where = folder or quantized_folder()
    for path in [*where.glob("*.safetensors"), *where.glob("*.tmp")]:
        size = path.stat().st_size
        path.unlink(missing_ok=True)
        freed += size
    return freed
