"""A directory that the user already has, in place of a download: looked at and hashed, never written to."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelFilesError
from engine.model_store.catalog import CHINESE_WAV2VEC2, FLASHTALK, ModelEntry
from engine.model_store.checkpoint import inspect_checkpoint, inspect_speech_encoder
from engine.model_store.manifest import FileRecord, Manifest, read_manifest


def problems_of(entry: ModelEntry, directory: Path, *, is_strict: bool = False) -> tuple[str, ...]:
    """Why `directory` is not that model, as sentences; empty if it is. `is_strict` raises `ModelFilesError` instead,
    with its hint."""
    try:
        if entry.name == FLASHTALK.name:
            inspect_checkpoint(directory, needs_speech=False)
        elif entry.name == CHINESE_WAV2VEC2.name:
            inspect_speech_encoder(directory)
        else:
            _check_layout(entry, directory)
    except ModelFilesError as error:
        if is_strict:
            raise
        return (error.message,)
    return ()


def own_problems(entry: ModelEntry, directory: Path, notes: Path) -> tuple[str, ...]:
    """`problems_of`, and what the last verification noted in `notes`."""
    recorded = read_manifest(notes)
    changed = (
        () if recorded is None else tuple(f"{path} had changed when it was verified." for path in recorded.damaged)
    )
    return problems_of(entry, directory) or changed


def own_size_bytes(entry: ModelEntry, directory: Path) -> int:
    """Of the files that are used, as they are now."""
    try:
        paths, _ = entry.select(_paths(directory))
        return sum((directory / path).stat().st_size for path in paths)
    except OSError:
        return 0


def companions(entry: ModelEntry, directory: Path) -> dict[str, Path]:
    """Directories, inside or beside this one, of the models that it needs; by name."""
    if entry.name != FLASHTALK.name:
        return {}
    speech = inspect_checkpoint(directory, needs_speech=False).speech_directory
    return {} if speech is None else {CHINESE_WAV2VEC2.name: speech}


def own_manifest(entry: ModelEntry, directory: Path, notes: Path) -> Manifest:
    """What to verify `directory` against: what was recorded in `notes`, else what the catalogue is certain of."""
    recorded = read_manifest(notes)
    if recorded is not None:
        return recorded
    paths, _ = entry.select(_paths(directory))
    files = []
    for path in paths:
        known = entry.known.get(path)
        size_bytes = known.size_bytes if known else (directory / path).stat().st_size
        files.append(FileRecord(path=path, size_bytes=size_bytes, sha256=known.sha256 if known else ""))
    return Manifest(name=entry.name, repository=entry.repository, commit="", licence="", files=tuple(files))


def _check_layout(entry: ModelEntry, directory: Path) -> None:
    if not directory.is_dir():
        raise ModelFilesError(f"There is no directory {directory}.", code="models.no_directory")
    _, missing = entry.select(_paths(directory))
    if missing:
        raise ModelFilesError(
            f"{directory} is not {entry.repository}: {', '.join(missing)} missing.",
            code="models.not_the_model",
            hint=f"Compare it with {entry.page}.",
        )


def _paths(directory: Path) -> list[str]:
    """All files, relative, with `/`."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
