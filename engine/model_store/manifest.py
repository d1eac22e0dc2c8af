"""What a downloaded model consists of, written beside its files: paths, sizes and hashes of one pinned commit."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from engine.errors import ModelFilesError

MANIFEST_NAME = "standin-manifest.json"
_FORMAT = 1
_LARGEST_JSON_BYTES = 16 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names that Windows gives to devices in every folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file: its path in the repository (with `/`), size in bytes and digests in hex, empty where unknown.

    `sha256` is published for large files; of small ones the hub gives the git blob's SHA-1, and the SHA-256 is
    filled in once the file is here and has agreed with that.
    """

    path: str
    size_bytes: int
    sha256: str = ""
    git_sha1: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The files of `repository` at `commit`; `damaged` are those that a verification found changed."""

    name: str
    repository: str
    commit: str
    licence: str
    files: tuple[FileRecord, ...]
    damaged: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(record.size_bytes for record in self.files)

    def with_record(self, record: FileRecord) -> Manifest:
        """The same with one file's record replaced."""
        return replace(self, files=tuple(record if old.path == record.path else old for old in self.files))


def is_commit(revision: str) -> bool:
    """Whether it names one commit for good, unlike a branch."""
    return _COMMIT.fullmatch(revision) is not None


def check_path(path: str) -> None:
    """Raises `ModelFilesError` for a path that could lead out of the model's folder, or is none on some system."""
    parts = path.split("/")
    is_bad = (
        not path
        or len(path) > 400
        or path != str(PurePosixPath(path))
        or any(character in path for character in '\\:*?"<>|')
        or any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in path)
        or any(part in ("", ".", "..") or part != part.rstrip(". ") for part in parts)
        or any(part.split(".")[0].lower() in _RESERVED for part in parts)
        or path.lower() == MANIFEST_NAME
    )
    if is_bad:
        raise ModelFilesError(
            f"The server lists a file with the name {path[:120]!r}, which must not be written.",
            code="models.unsafe_path",
            hint="Nothing was downloaded. If this is a mirror, use another one.",
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in `folder`, whole or not at all."""
    write_json(folder / MANIFEST_NAME, {"format": _FORMAT, **asdict(manifest)})


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None if there is none that can be used."""
    content = read_json(folder / MANIFEST_NAME)
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        return None
    try:
        return msgspec.convert(_checked(content), Manifest)
    except (msgspec.ValidationError, ValueError, OverflowError, KeyError, TypeError, AttributeError, ModelFilesError):
        return None


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """Nothing unknown, no path that leads elsewhere, no size below 0."""
    records = content["files"]
    if not all(isinstance(record["path"], str) for record in records):
        raise TypeError("a path that is no text")
    if set(content) != _names_of(Manifest) or any(not set(record) <= _names_of(FileRecord) for record in records):
        raise TypeError("other fields than those of a manifest")
    for record in records:
        check_path(record["path"])
        if record["size_bytes"] < 0:
            raise TypeError("a size below 0")
    return content


def _names_of(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def read_json(path: Path) -> Any:
    """The parsed content, or None if there is none."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write beside and rename, so that a reader never sees half of it. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
