"""The portraits to choose from: samples, and the user's own pictures, copied into the user's data folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from PySide6.QtCore import QObject, QSize, Signal
from PySide6.QtGui import QImage, QImageReader

from engine.assets import asset_path
from engine.paths import open_private, private_folder

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 240
PICTURE_PX = 1600
"""Shorter side at most of a picture to look at closely: what a dialog on a large screen shows."""

_MAX_PIXELS = 64_000_000
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic")
FILE_FILTER = "Pictures (" + " ".join(f"*{s}" for s in _SUFFIXES) + ");;All files (*)"


@dataclass(frozen=True, kw_only=True)
class PortraitEntry:
    """One portrait: `ref` is what the engine is given, `path` the picture."""

    ref: str
    title: str
    path: Path
    is_sample: bool


class PortraitLibrary(QObject):
    """Copies and reads pictures on a worker thread; signals come on the GUI thread."""

    added = Signal(object)
    refused = Signal(str, str)
    thumbnail_ready = Signal(str, QImage)
    picture_ready = Signal(str, QImage)
    """Upright, at most `PICTURE_PX`; null if the picture cannot be read."""

    def __init__(self, folder: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.folder = folder or Path(platformdirs.user_data_dir("standin", appauthor=False)) / "portraits"
        # Not QThreadPool: a QRunnable made from a Python function is freed twice at times.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="portraits")
        self._removed = self.folder / "removed"
        self._discard_removed()

    def _discard_removed(self) -> None:
        """What was put aside before goes for good; out of the way at once, because `remove` may need the place before
        the worker has come to it."""
        discarded = self.folder / "discarded"
        if self._removed.is_dir():
            self._move(self._removed, discarded / uuid.uuid4().hex)
        self._run(lambda: shutil.rmtree(discarded, ignore_errors=True))

    def entries(self) -> list[PortraitEntry]:
        """Samples first, then the user's pictures by name."""
        index = asset_path("portraits/index.json")
        samples = [
            PortraitEntry(ref=f"sample:{s['id']}", title=s["title"], path=index.parent / s["file"], is_sample=True)
            for s in json.loads(index.read_text(encoding="utf-8"))
        ]
        files = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return samples + [_entry(path) for path in files if path.suffix.lower() in _SUFFIXES]

    def add_file(self, path: str) -> None:
        """Copy a picture in; `added` or `refused` follows."""
        self._run(lambda: self._add_file(Path(path)))

    def add_image(self, image: QImage) -> None:
        """Take a picture from the clipboard; `added` or `refused` follows."""
        self._run(lambda: self._add_image(image))

    def remove(self, ref: str) -> None:
        """Put one of the user's pictures aside, until the library is opened the next time; the original file is not
        touched."""
        path = Path(ref)
        if path.parent == self.folder:
            self._move(path, self._removed / path.name)  # at once: what waits is dropped when the window closes

    def restore(self, ref: str) -> None:
        """Take back what was removed; `added` follows."""
        path = Path(ref)
        if self._move(self._removed / path.name, path):
            self.added.emit(_entry(path))

    def _move(self, source: Path, target: Path) -> bool:
        try:
            private_folder(target.parent)
            source.replace(target)
        except OSError as error:
            logger.warning("%s cannot be moved: %s", source, error)
            return False
        return True

    def request_thumbnail(self, entry: PortraitEntry) -> None:
        """`thumbnail_ready` follows if the picture can be read."""
        self._run(lambda: self._read_thumbnail(entry))

    def request_picture(self, entry: PortraitEntry) -> None:
        """`picture_ready` follows."""
        self._run(lambda: self.picture_ready.emit(entry.ref, _read(entry.path, PICTURE_PX)))

    def wait(self) -> None:
        """Until nothing is under way (at closing, and in tests)."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, work) -> None:
        self._pool.submit(work)

    def _add_file(self, path: Path) -> None:
        reader = QImageReader(str(path))
        reader.setDecideFormatFromContent(True)
        size = reader.size()
        if not path.is_file():
            self.refused.emit(f"{path.name} is not a file.", "Drop or choose a picture.")
        elif size.isValid() and size.width() * size.height() > _MAX_PIXELS:
            self.refused.emit(
                f"{path.name} is too large ({size.width()} x {size.height()}).", "Choose a picture under 64 megapixels."
            )
        elif reader.read().isNull():
            self.refused.emit(f"{path.name} is not a picture that can be read.", "Choose a PNG, JPEG or WebP file.")
        else:
            try:
                self._copy_in(path)
            except OSError as error:
                self.refused.emit(f"{path.name} could not be copied.", str(error))

    def _copy_in(self, path: Path) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        suffix = path.suffix.lower() if path.suffix.lower() in _SUFFIXES else ".png"
        stem = path.stem.removesuffix(f"-{digest}")[:60]
        target = self.folder / f"{stem}-{digest}{suffix}"
        private_folder(self.folder)
        if not target.exists():
            partial = target.with_name(target.name + ".partial")
            open_private(partial).close()
            shutil.copyfile(path, partial)
            partial.replace(target)
        self.added.emit(_entry(target))

    def _add_image(self, image: QImage) -> None:
        digest = hashlib.sha256(bytes(image.convertToFormat(QImage.Format.Format_RGBA8888).constBits())).hexdigest()
        target = self.folder / f"Pasted-{digest[:8]}.png"
        with contextlib.suppress(OSError):  # saving tells
            private_folder(self.folder)
            open_private(target).close()
        if image.save(str(target)):
            self.added.emit(_entry(target))
        else:
            self.refused.emit("The pasted picture could not be kept.", f"Check the folder {self.folder}.")

    def _read_thumbnail(self, entry: PortraitEntry) -> None:
        image = _read(entry.path, THUMBNAIL_PX)
        if not image.isNull():
            self.thumbnail_ready.emit(entry.ref, image)


def _read(path: Path, side_px: int) -> QImage:
    """Upright and reduced until the shorter side is `side_px`; null if it cannot be read."""
    reader = QImageReader(str(path))
    reader.setDecideFormatFromContent(True)
    reader.setAutoTransform(True)
    size = reader.size()
    if not size.isValid() or size.width() * size.height() > _MAX_PIXELS:
        return QImage()
    reader.setScaledSize(_covering(size, side_px))
    return reader.read()


def _entry(path: Path) -> PortraitEntry:
    stem, _, tail = path.stem.rpartition("-")
    return PortraitEntry(
        ref=str(path), title=stem if stem and len(tail) == 8 else path.stem, path=path, is_sample=False
    )


def _covering(size: QSize, side_px: int) -> QSize:
    factor = min(1.0, side_px / max(1, min(size.width(), size.height())))
    return QSize(max(1, round(size.width() * factor)), max(1, round(size.height() * factor)))
