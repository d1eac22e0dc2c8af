"""Where one model lies in the store, and what is there: folders, pin and manifests, no network.

`<store>/<name>/pin.json` names the commit in use, or a directory of the user's own. `<store>/<name>/<commit>/` holds a
complete commit: while it is being fetched it is called `<commit>.part`, and is renamed when every file has agreed with
its hash.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.model_store.download import PART
from engine.model_store.manifest import MANIFEST_NAME, Manifest, is_commit, read_json, read_manifest, write_json
from engine.model_store.verify import Damage, size_damage


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Which commit of a model is used, or which `directory` of the user's own instead."""

    commit: str = ""
    directory: str = ""


class Shelf:
    """The folder of one model in the store."""

    def __init__(self, store: Path, name: str) -> None:
        self.folder = store / name
        self.lock_path = store / ".locks" / f"{name}.lock"
        self._pin_path = self.folder / "pin.json"
        self.own_manifest_folder = self.folder / "own"
        """Where the hashes of the user's own directory are recorded: nothing is written into that."""

    @property
    def pin(self) -> Pin:
        """As recorded; if the record is lost, the commit that is there."""
        content = read_json(self._pin_path)
        if isinstance(content, dict):
            commit, directory = content.get("commit", ""), content.get("directory", "")
            if isinstance(directory, str) and directory:
                return Pin(directory=directory)
            if isinstance(commit, str) and is_commit(commit):
                return Pin(commit=commit)
        return Pin(commit=next(iter(self.commits()), ""))

    def set_pin(self, pin: Pin) -> None:
        """Raises `OSError`."""
        write_json(self._pin_path, {"commit": pin.commit, "directory": pin.directory})

    def commits(self) -> list[str]:
        """Those that are, or once were, complete."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if is_commit(path.name) and path.is_dir())

    def complete_folder(self, commit: str) -> Path:
        """Where that commit is once it is complete."""
        return self.folder / commit

    def partial_folder(self, commit: str) -> Path:
        """Where that commit is being fetched."""
        return self.folder / (commit + PART)

    def damage(self, commit: str) -> list[Damage]:
        """What is wrong with a complete commit, by file sizes and what the last verification noted."""
        folder = self.complete_folder(commit)
        manifest = read_manifest(folder)
        if manifest is None:
            return [Damage(path=MANIFEST_NAME, reason="is missing or cannot be read")]
        found = [damage for record in manifest.files if (damage := size_damage(folder, record)) is not None]
        known = {damage.path for damage in found}
        return found + [Damage(path=path, reason="has changed") for path in manifest.damaged if path not in known]

    def reopen(self, commit: str) -> None:
        """Turn a damaged complete commit into a partial one, without its damaged files. Raises `OSError`."""
        damaged = self.damage(commit)
        folder = self.partial_folder(commit)
        if folder.exists():
            shutil.rmtree(folder)
        self.complete_folder(commit).rename(folder)
        if read_manifest(folder) is None:
            # Nobody can tell which of the files are good: as parts, they are all hashed again.
            for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != PART]:
                path.rename(path.with_name(path.name + PART))
        for damage in damaged:
            (folder / damage.path).unlink(missing_ok=True)

    def arrived_bytes(self, commit: str, manifest: Manifest) -> int:
        """How much of it is there in the partial folder, finished files and parts of files."""
        folder = self.partial_folder(commit)
        total = 0
        for record in manifest.files:
            size_bytes = _size(folder / record.path)
            if size_bytes != record.size_bytes:
                size_bytes = _size(folder / (record.path + PART))
            total += min(size_bytes, record.size_bytes)
        return total

    def disk_bytes(self) -> int:
        """Everything of this model in the store."""
        return folder_bytes(self.folder)

    def remove(self, *, except_commit: str = "") -> int:
        """Delete everything but `except_commit`; returns the bytes freed. Raises `OSError`."""
        if not self.folder.is_dir():
            return 0
        before = self.disk_bytes()
        if not except_commit:
            # What is half removed must not look complete: the pin goes last, names of whole commits first.
            for commit in self.commits():
                self._remove_commit(commit)
            shutil.rmtree(self.folder)
        else:
            for path in list(self.folder.iterdir()):
                if path.is_dir() and path.name != except_commit:
                    self._remove_commit(path.name) if is_commit(path.name) else shutil.rmtree(path)
        return before - self.disk_bytes()

    def _remove_commit(self, commit: str) -> None:
        leaving = self.folder / (commit + ".removed")
        if leaving.exists():
            shutil.rmtree(leaving)
        self.complete_folder(commit).rename(leaving)
        shutil.rmtree(leaving)


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below; a file with several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        if path.is_file():
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
