"""The models on this machine: what is there, fetch, verify, forget. The typed interface for commands and the window.

All calls may come from any thread, and from several processes at once: whatever changes a model's files holds its lock.
Long calls take a `Progress` (stage, bytes) whose `update` may raise `Cancelled`; what has arrived then stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelFilesError, UsageError
from engine.model_store.catalog import CATALOGUE, ModelEntry, entry_named
from engine.model_store.download import LOOK_UP_ATTEMPTS, Patience, disk_error, fetch
from engine.model_store.hub import Hub
from engine.model_store.lock import try_lock
from engine.model_store.manifest import FileRecord, Manifest, read_manifest, write_manifest
from engine.model_store.meter import Meter, size_text
from engine.model_store.own import companions, own_manifest, problems_of
from engine.model_store.plan import DownloadPlan, ModelPlan, plan_model
from engine.model_store.quantized import PRECISIONS, quantized_copies, quantized_folder, remove_quantized_copies
from engine.model_store.shelf import Pin, Shelf
from engine.model_store.state import ModelState, examine
from engine.model_store.verify import Damage, hash_files
from engine.paths import expanded, models_folder
from engine.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """`is_first`: nothing was known to compare with, the hashes were recorded for the next time."""

    name: str
    file_count: int
    size_bytes: int
    damaged: tuple[Damage, ...]
    is_first: bool


class ModelStore:
    """The store in `folder` (default: the user's), fetching from `endpoint` (default: the usual hub or HF_ENDPOINT).

    `copies_folder` is where 8-bit copies of weights lie: the user's for the user's own store, none for another.
    `timeout_s` is how long a silent server is waited for, `pause_s` the shortest pause before trying again,
    `reserve_bytes` what stays free on the disk; `is_offline` refuses whatever would need the network. Nothing is
    read or created until a method is called.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        endpoint: str | None = None,
        catalogue: Mapping[str, ModelEntry] = CATALOGUE,
        timeout_s: float = 15.0,
        pause_s: float = 1.0,
        reserve_bytes: int = 256 << 20,
        is_offline: bool = False,
        copies_folder: Path | None = None,
    ) -> None:
        self.folder = folder or models_folder()
        self._copies_folder = quantized_folder() if copies_folder is None and folder is None else copies_folder
        self._catalogue = dict(catalogue)
        self._hub = Hub(endpoint, timeout_s=timeout_s, is_offline=is_offline)
        self._pause_s = pause_s
        self._reserve_bytes = reserve_bytes

    def states(self) -> list[ModelState]:
        """Every model of the catalogue. Reads names and sizes only."""
        return [self.state(name) for name in self._catalogue]

    def state(self, name: str) -> ModelState:
        """One model. Raises `UsageError` for an unknown name."""
        entry = entry_named(name, self._catalogue)
        state = examine(entry, Shelf(self.folder, name))
        if self._copies_folder is None or not entry.has_8_bit_copies:
            return state
        return replace(state, copies=tuple(quantized_copies(self._copies_folder)))

    def path(self, name: str) -> Path:
        """The directory to load from. Raises `ModelFilesError` unless the model is complete."""
        state = self.state(name)
        if state.path is not None:
            return state.path
        what = {
            "absent": "has not been downloaded",
            "partial": "has only been downloaded in part",
            "damaged": "is damaged: " + "; ".join(problem.rstrip(".") for problem in state.problems[:3]),
        }[state.status]
        raise ModelFilesError(
            f"The model {name} {what}.",
            code=f"models.{state.status}",
            hint=f'"standin models download {name}" gets it, with "--from-dir" from a directory that you have.',
        )

    def plan(self, name: str, progress: Progress, *, revision: str | None = None) -> DownloadPlan:
        """What `download` would fetch for `name` and what it needs: licences, sizes, room. Changes nothing.

        `revision` (of `name` alone) is a commit or a branch; without it the pinned commit is taken. Asks the hub about
        what is not complete. Raises `ModelFilesError`, `UsageError`, `Cancelled`.
        """
        entry = entry_named(name, self._catalogue)
        patience = Patience(Meter(progress, "look up", 0), self._pause_s, LOOK_UP_ATTEMPTS)
        plans = []
        for wanted in (*(entry_named(need, self._catalogue) for need in entry.needs), entry):
            asked = revision if wanted is entry else None
            if asked is None and self.state(wanted.name).status == "complete":
                continue
            model = plan_model(wanted, Shelf(self.folder, wanted.name), self._hub, patience, revision=asked)
            if not model.is_complete:
                plans.append(model)
        return DownloadPlan(
            models=tuple(plans),
            folder=self.folder,
            needed_bytes=sum(model.missing_bytes for model in plans),
            free_bytes=_free_bytes(self.folder),
        )

    def download(self, name: str, progress: Progress, *, revision: str | None = None) -> ModelState:
        """`plan` and `fetch` in one; whoever calls this has shown the licence. Returns the state afterwards."""
        self.fetch(self.plan(name, progress, revision=revision), progress)
        return self.state(name)

    def fetch(self, plan: DownloadPlan, progress: Progress) -> None:
        """Carry out a plan: resumes, verifies, and is complete or raises `ModelFilesError` or `Cancelled`.

        Progress is in bytes of the whole plan, stage "download"; "waiting" while another process fetches the same.
        """
        self.check_room(plan.needed_bytes)
        meter = Meter(progress, "download", sum(model.manifest.size_bytes for model in plan.models))
        for model in plan.models:
            with self._locked(model.entry.name, progress):
                try:
                    self._fetch_model(model, meter)
                except OSError as error:
                    raise disk_error(error, self.folder) from error

    def check_room(self, missing_bytes: int) -> None:
        """Raises `ModelFilesError` unless `missing_bytes` more fit on the store's disk, with the reserve."""
        needed, free = missing_bytes + self._reserve_bytes, _free_bytes(self.folder)
        if missing_bytes and needed > free:
            raise ModelFilesError(
                f"There is not enough room in {self.folder}: {size_text(needed)} needed, {size_text(free)} free.",
                code="models.no_room",
                hint="Free some space and try again; what has arrived is kept.",
            )

    def register(self, name: str, directory: Path) -> ModelState:
        """Use a directory that the user already has: it is looked at, never written to nor copied.

        A model that it needs and that lies inside or beside it is registered with it, unless that is complete already.
        Raises `ModelFilesError` if it is not the model, or if that has been downloaded already.
        """
        entry = entry_named(name, self._catalogue)
        directory = expanded(directory).resolve()
        problems = problems_of(entry, directory, is_strict=True)
        if problems:
            raise ModelFilesError(problems[0], code="models.not_the_model")
        shelf = Shelf(self.folder, name)
        if shelf.commits():
            raise ModelFilesError(
                f"{name} has been downloaded already.",
                code="models.already_there",
                hint=f'"standin models remove {name}" makes room for your own directory.',
            )
        with self._locked(name):
            try:
                # What was recorded of another directory, or of an earlier state of this one, counts no more.
                shutil.rmtree(shelf.own_manifest_folder, ignore_errors=True)
                shelf.set_pin(Pin(directory=str(directory)))
            except OSError as error:
                raise disk_error(error, self.folder) from error
        for need, place in companions(entry, directory).items():
            if self.state(need).status in ("absent", "damaged") and not Shelf(self.folder, need).commits():
                self.register(need, place)
        return self.state(name)

    def verify(self, name: str, progress: Progress) -> Verification:
        """Read every file and compare hashes; damage is noted, so that the next download mends it.

        Raises `ModelFilesError` if there is nothing to verify, `Cancelled`.
        """
        entry = entry_named(name, self._catalogue)
        shelf = Shelf(self.folder, name)
        pin = shelf.pin
        with self._locked(name, progress):
            if pin.directory:
                folder, notes = Path(pin.directory), shelf.own_manifest_folder
                manifest = own_manifest(entry, folder, notes)
            else:
                folder = notes = shelf.complete_folder(pin.commit) if pin.commit else shelf.folder
                found = read_manifest(folder)
                if found is None:
                    self.path(name)
                    raise ModelFilesError(f"There is nothing to verify of {name}.", code="models.absent")
                manifest = found
            is_first = not any(record.sha256 or record.git_sha1 for record in manifest.files)
            manifest, damaged = hash_files(folder, manifest, progress)
            try:
                write_manifest(notes, manifest)
            except OSError as error:
                raise disk_error(error, self.folder) from error
        return Verification(
            name=name,
            file_count=len(manifest.files),
            size_bytes=manifest.size_bytes,
            damaged=tuple(damaged),
            is_first=is_first,
        )

    def remove(self, name: str, *, only_old: bool = False) -> int:
        """Delete the model and its 8-bit copies (or only commits and parts that are not in use); returns the bytes
        freed.

        A directory of the user's own is forgotten, not deleted. Raises `ModelFilesError` while it is being fetched.
        """
        entry_named(name, self._catalogue)
        shelf = Shelf(self.folder, name)
        with self._locked(name):
            try:
                if only_old:
                    in_use = shelf.pin.commit
                    return shelf.remove(except_commit=in_use) if in_use else 0
                freed = shelf.remove()
            except OSError as error:
                raise disk_error(error, shelf.folder) from error
        return freed + self.remove_copies(name)

    def remove_copies(self, name: str, precision: str | None = None) -> int:
        """Delete the weights of a model that are kept in 8 bits, or those of one precision; returns the bytes freed.

        They are made again when they are next needed. Raises `UsageError` for a precision that there is not,
        `ModelFilesError`.
        """
        entry = entry_named(name, self._catalogue)
        if precision not in (None, *PRECISIONS):
            hint = f"There are: {', '.join(PRECISIONS)}."
            raise UsageError(f'No weights are kept in a precision "{precision}".', hint=hint, code="models.precision")
        if self._copies_folder is None or not entry.has_8_bit_copies:
            return 0
        try:
            return remove_quantized_copies(self._copies_folder, precision)
        except OSError as error:
            raise disk_error(error, self._copies_folder) from error

    def _fetch_model(self, model: ModelPlan, meter: Meter) -> None:
        shelf = Shelf(self.folder, model.entry.name)
        commit = model.manifest.commit
        complete, partial = shelf.complete_folder(commit), shelf.partial_folder(commit)
        if complete.is_dir() and shelf.damage(commit):
            shelf.reopen(commit)
        if not complete.is_dir():
            manifest = model.manifest
            self.check_room(manifest.size_bytes - shelf.arrived_bytes(commit, manifest))
            write_manifest(partial, replace(manifest, damaged=()))
            if not shelf.commits():
                shelf.set_pin(Pin(commit=commit))
            patience = Patience(meter, self._pause_s)
            for record in manifest.files:
                manifest = manifest.with_record(self._fetch_file(shelf, manifest, record, meter, patience))
            write_manifest(partial, replace(manifest, damaged=()))
            partial.rename(complete)
        else:
            meter.add(model.manifest.size_bytes)
        shelf.set_pin(Pin(commit=commit))

    def _fetch_file(
        self, shelf: Shelf, manifest: Manifest, record: FileRecord, meter: Meter, patience: Patience
    ) -> FileRecord:
        folder = shelf.partial_folder(manifest.commit)
        destination = folder / record.path
        if destination.is_file() and destination.stat().st_size == record.size_bytes:
            # It got its name because its hash agreed.
            meter.add(record.size_bytes)
            return record
        return fetch(self._hub, manifest.repository, manifest.commit, record, folder, meter, patience)

    @contextmanager
    def _locked(self, name: str, progress: Progress | None = None) -> Iterator[None]:
        """Hold the model's lock: wait for it with `progress`, raise `ModelFilesError` at once without."""
        while True:
            with ExitStack() as stack:
                try:
                    is_mine = stack.enter_context(try_lock(Shelf(self.folder, name).lock_path))
                except OSError as error:
                    raise disk_error(error, self.folder) from error
                if is_mine:
                    yield
                    return
            if progress is None:
                raise ModelFilesError(
                    f"{name} is being downloaded or verified by another Standin.",
                    code="models.locked",
                    hint="Wait for it or stop it, then try again.",
                )
            Meter(progress, "waiting", 0).wait(0.2)


def _free_bytes(folder: Path) -> int:
    """On the disk that `folder` is, or will be, on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
