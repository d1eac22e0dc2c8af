"""Holds the files of a model against their manifest: quickly by size, or thoroughly by SHA-256."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelFilesError
from engine.model_store.download import Digest
from engine.model_store.manifest import FileRecord, Manifest
from engine.model_store.meter import Meter
from engine.progress import Progress

_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A file that is not as it should be, and why (`is missing`, `has 3 bytes instead of 5`, `has changed`)."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def size_damage(folder: Path, record: FileRecord) -> Damage | None:
    """What a look at the file's size shows; no byte is read."""
    try:
        size_bytes = (folder / record.path).stat().st_size
    except OSError:
        return Damage(path=record.path, reason="is missing")
    if size_bytes != record.size_bytes:
        return Damage(path=record.path, reason=f"has {size_bytes} bytes instead of {record.size_bytes}")
    return None


def hash_files(folder: Path, manifest: Manifest, progress: Progress) -> tuple[Manifest, list[Damage]]:
    """Read every file and compare. Returns the manifest with the damaged noted and unknown SHA-256s filled in.

    A record without any hash cannot disagree: its hash is recorded, to compare with the next time. Progress is in
    bytes, stage "verify". Raises `Cancelled`; `ModelFilesError` if a file cannot be read.
    """
    meter = Meter(progress, "verify", manifest.size_bytes)
    damaged = []
    for record in manifest.files:
        found = size_damage(folder, record)
        if found is None:
            digest = _digest(folder / record.path, meter)
            if digest.agrees(record):
                manifest = manifest.with_record(replace(record, sha256=digest.sha256))
            else:
                found = Damage(path=record.path, reason="has changed")
        if found is not None:
            damaged.append(found)
    return replace(manifest, damaged=tuple(damage.path for damage in damaged)), damaged


def _digest(path: Path, meter: Meter) -> Digest:
    digest = Digest(path.stat().st_size)
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.add(piece)
                meter.add(len(piece))
    except OSError as error:
        raise ModelFilesError(
            f"{path} cannot be read: {error.strerror or error}.",
            code="models.unreadable",
            hint="The disk may be failing; copy what matters, then remove the model and download it again.",
        ) from error
    return digest
