"""The portraits to choose from: samples that come with Standin, and pictures the user added."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtGui import QImage, QImageReader

from engine.assets import asset_path
from engine.errors import OutputError, PortraitError
from engine.paths import data_folder

_SIDE_PX = 192


@dataclass(frozen=True)
class PortraitItem:
    """One portrait: what the engine calls it, what a person calls it, and its picture."""

    reference: str
    title: str
    picture: Path
    is_sample: bool


class PortraitLibrary:
    """Pictures are copied into the user's data folder, so that nothing breaks when the original moves."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or data_folder() / "portraits" / "pictures"

    def items(self) -> list[PortraitItem]:
        """Samples first, then own pictures in the order they came."""
        index = asset_path("portraits/index.json")
        samples = [
            PortraitItem(f"sample:{entry['id']}", entry["title"], index.parent / entry["file"], True)
            for entry in json.loads(index.read_text(encoding="utf-8"))
        ]
        own = sorted(self._folder.glob("*"), key=lambda path: path.stat().st_mtime) if self._folder.is_dir() else []
        return samples + [PortraitItem(str(path), path.stem, path, False) for path in own if path.is_file()]

    def add(self, source: Path) -> PortraitItem:
        """Copy a picture in. Raises `PortraitError` for what is none, `OutputError` where it cannot be kept."""
        reader = QImageReader(str(source))
        if not source.is_file():
            raise PortraitError(f"There is no picture at {source}.", code="portrait.missing", hint="Choose it again.")
        if not reader.canRead() and source.suffix.lower() not in (".avif", ".tif", ".tiff", ".webp"):
            raise PortraitError(
                f"{source.name} is not a picture that Standin can read.",
                code="portrait.not_an_image",
                hint="Choose a PNG, JPEG or WebP picture of a face.",
            )
        target = self._free_name(source.stem, source.suffix)
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise self._not_kept(error) from error
        return PortraitItem(str(target), target.stem, target, False)

    def add_image(self, image: QImage, title: str = "Pasted") -> PortraitItem:
        """Keep a picture from the clipboard."""
        target = self._free_name(title, ".png")
        if not image.save(str(target)):
            raise self._not_kept(None)
        return PortraitItem(str(target), target.stem, target, False)

    def remove(self, item: PortraitItem) -> None:
        """Forget an own picture; samples stay."""
        if not item.is_sample:
            item.picture.unlink(missing_ok=True)

    def _free_name(self, stem: str, suffix: str) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_kept(error) from error
        stem = stem[:80] or "Portrait"
        target, number = self._folder / f"{stem}{suffix}", 2
        while target.exists():
            target, number = self._folder / f"{stem} {number}{suffix}", number + 1
        return target

    def _not_kept(self, error: OSError | None) -> OutputError:
        why = f": {error.strerror}" if error is not None and error.strerror else ""
        return OutputError(
            f"The picture could not be kept in {self._folder}{why}.",
            code="output.failed",
            hint="Check the free space and the permissions of that folder.",
        )


def thumbnail(path: Path) -> QImage:
    """A square picture for the gallery, upright, cut from the upper middle; null if it cannot be read."""
    reader = QImageReader(str(path))
    reader.setAutoTransform(True)
    size = reader.size()
    if size.isValid():
        scale = _SIDE_PX / max(1, min(size.width(), size.height()))
        if scale < 1:
            reader.setScaledSize(size * scale)
    image = reader.read()
    if image.isNull():
        return image
    side = min(image.width(), image.height())
    return image.copy((image.width() - side) // 2, (image.height() - side) // 4, side, side)
