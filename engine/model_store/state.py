"""How one model of the catalogue stands on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.model_store.catalog import ModelEntry
from engine.model_store.manifest import Manifest, read_manifest
from engine.model_store.own import own_problems, own_size_bytes
from engine.model_store.quantized import QuantizedCopy
from engine.model_store.shelf import Shelf

Status = Literal["absent", "partial", "complete", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelState:
    """One model of the catalogue as it is on this machine.

    `size_bytes` is the total (an estimate until `size_is_exact`), `disk_bytes` what is taken up in the store. `path` is
    the directory to load from, None unless `status` is "complete"; `is_own` says that it is the user's own directory.
    `licence` is empty while only the publisher's `page` tells it. `problems` are sentences about damage. `copies` are
    its weights in 8 bits, made from whatever checkpoint was used; `disk_bytes` leaves them out.
    """

    name: str
    title: str
    repository: str
    page: str
    licence: str
    size_bytes: int
    size_is_exact: bool
    status: Status
    path: Path | None
    disk_bytes: int
    is_own: bool
    commit: str
    needs: tuple[str, ...]
    problems: tuple[str, ...]
    copies: tuple[QuantizedCopy, ...] = ()

    @property
    def copies_bytes(self) -> int:
        """Of all `copies`."""
        return sum(copy.size_bytes for copy in self.copies)


def examine(entry: ModelEntry, shelf: Shelf) -> ModelState:
    """The state, from names and sizes only; no file is read but manifests and headers."""
    pin = shelf.pin
    state = _blank(entry, commit=pin.commit, disk_bytes=shelf.disk_bytes())
    if pin.directory:
        directory = Path(pin.directory)
        problems = own_problems(entry, directory, shelf.own_manifest_folder)
        size_bytes = own_size_bytes(entry, directory) or state.size_bytes
        return _with_status(replace(state, is_own=True, size_bytes=size_bytes, size_is_exact=True), directory, problems)
    partial = next((path for path in sorted(shelf.folder.glob("*.part")) if read_manifest(path)), None)
    if pin.commit and shelf.complete_folder(pin.commit).is_dir():
        folder = shelf.complete_folder(pin.commit)
        state = _as_listed(state, read_manifest(folder))
        return _with_status(state, folder, tuple(f"{damage}." for damage in shelf.damage(pin.commit)))
    if partial is not None:
        return replace(_as_listed(state, read_manifest(partial)), status="partial")
    return state


def _blank(entry: ModelEntry, *, commit: str, disk_bytes: int) -> ModelState:
    return ModelState(
        name=entry.name,
        title=entry.title,
        repository=entry.repository,
        page=entry.page,
        licence=entry.licence,
        size_bytes=entry.size_bytes,
        size_is_exact=entry.size_is_exact,
        status="absent",
        path=None,
        disk_bytes=disk_bytes,
        is_own=False,
        commit=commit,
        needs=entry.needs,
        problems=(),
    )


def _as_listed(state: ModelState, manifest: Manifest | None) -> ModelState:
    """With what the manifest knows better than the catalogue."""
    if manifest is None:
        return state
    return replace(
        state,
        size_bytes=manifest.size_bytes,
        size_is_exact=True,
        licence=manifest.licence or state.licence,
        commit=manifest.commit,
    )


def _with_status(state: ModelState, path: Path, problems: tuple[str, ...]) -> ModelState:
    if problems:
        return replace(state, status="damaged", problems=problems)
    return replace(state, status="complete", path=path)
