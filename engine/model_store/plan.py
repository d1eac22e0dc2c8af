"""What a download would fetch: asked of the hub once per commit, then known from the manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelFilesError
from engine.model_store.catalog import ModelEntry
from engine.model_store.download import Patience, persistently
from engine.model_store.hub import Hub
from engine.model_store.manifest import FileRecord, Manifest, is_commit, read_manifest
from engine.model_store.shelf import Shelf


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPlan:
    """One model at one commit; `missing_bytes` are still to be fetched, `licence` is as its publisher states it."""

    entry: ModelEntry
    manifest: Manifest
    missing_bytes: int
    is_complete: bool

    @property
    def licence(self) -> str:
        """An identifier, or empty if the publisher names none."""
        return self.manifest.licence


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadPlan:
    """Models in the order in which they are fetched; none if everything is there. `folder` is where they go."""

    models: tuple[ModelPlan, ...]
    folder: Path
    needed_bytes: int
    free_bytes: int


def plan_model(entry: ModelEntry, shelf: Shelf, hub: Hub, patience: Patience, *, revision: str | None) -> ModelPlan:
    """The plan for one model. A commit whose manifest is here needs no network. Raises `ModelFilesError`."""
    wanted = revision or shelf.pin.commit or entry.revision
    manifest = _recorded(shelf, wanted) if is_commit(wanted) else None
    if manifest is None:
        manifest = _listed(entry, hub, patience, wanted)
    is_complete = shelf.complete_folder(manifest.commit).is_dir()
    if is_complete:
        damaged = {damage.path for damage in shelf.damage(manifest.commit)}
        missing_bytes = sum(record.size_bytes for record in manifest.files if record.path in damaged)
        is_complete = not damaged and shelf.pin.commit == manifest.commit
    else:
        missing_bytes = manifest.size_bytes - shelf.arrived_bytes(manifest.commit, manifest)
    return ModelPlan(entry=entry, manifest=manifest, missing_bytes=missing_bytes, is_complete=is_complete)


def _recorded(shelf: Shelf, commit: str) -> Manifest | None:
    for folder in (shelf.complete_folder(commit), shelf.partial_folder(commit)):
        manifest = read_manifest(folder)
        if manifest is not None and manifest.commit == commit:
            return manifest
    return None


def _listed(entry: ModelEntry, hub: Hub, patience: Patience, revision: str) -> Manifest:
    """The hub's listing, reduced to what is wanted and held against what the catalogue is certain of."""
    listing = persistently(lambda: hub.listing(entry.repository, revision), patience, entry.repository)
    paths, missing = entry.select([record.path for record in listing.files])
    if missing:
        raise ModelFilesError(
            f"{entry.repository} does not have {', '.join(missing)} at {listing.commit[:12]}.",
            code="models.no_file",
            hint="Leave --revision away, or use another mirror.",
        )
    records = {record.path: record for record in listing.files}
    files = tuple(records[path] for path in paths)
    if listing.commit == entry.revision:
        files = tuple(_certain(entry, record) for record in files)
    return Manifest(
        name=entry.name,
        repository=entry.repository,
        commit=listing.commit,
        licence=listing.licence or entry.licence,
        files=files,
    )


def _certain(entry: ModelEntry, record: FileRecord) -> FileRecord:
    """The record with the catalogue's hash; raises `ModelFilesError` if the server offers something else."""
    known = entry.known.get(record.path)
    if known is None:
        return record
    if record.size_bytes != known.size_bytes or (record.sha256 and record.sha256 != known.sha256):
        raise ModelFilesError(
            f"The server offers another {record.path} of {entry.repository} than its publisher did.",
            code="models.unexpected_file",
            hint="Use another mirror, or none.",
        )
    return replace(record, sha256=known.sha256)
