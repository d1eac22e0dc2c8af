"""Prompt and portrait features kept on disk, so that a second start needs neither text nor image encoder.

A key is the hash of everything that made the features: inputs and weights. Entries are written beside and moved into
place; one that cannot be read is made again; the oldest go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.paths import cache_folder, private_folder

logger = logging.getLogger(__name__)

_KEPT = 200
_SAMPLE_BYTES = 1 << 20


def content_key(*parts: str) -> str:
    """The hash of some texts, each told apart from its neighbours."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def weights_key(path: Path) -> str:
    """What is in a weights file, without reading all of it.

    A torch file is a zip archive, whose directory has the checksum of every tensor; of any other file its size and
    both its ends are taken.
    """
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                digest.update(f"{info.filename.split('/', 1)[-1]} {info.file_size} {info.CRC}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, path.stat().st_size - _SAMPLE_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def remember(key: str, make: Callable[[], Tensor], folder: Path | None = None) -> Tensor:
    """The tensor stored under `key`, or what `make` returns, stored for the next time. A full disk only costs time."""
    path = (folder or cache_folder() / "flashtalk") / f"{key}.safetensors"
    try:
        features = load_file(path)["features"]
    except FileNotFoundError:
        pass
    except (OSError, KeyError, SafetensorError) as error:
        logger.warning("stored features in %s cannot be read and are made again: %s", path, error)
    else:
        with contextlib.suppress(OSError):  # a cache that others own can be read all the same
            os.utime(path)
        return features
    features = make().cpu().contiguous()
    _store(path, features)
    return features


def _store(path: Path, features: Tensor) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        private_folder(path.parent)
        save_file({"features": features}, draft)
        os.replace(draft, path)
        entries = sorted(path.parent.glob("*.safetensors"), key=lambda entry: entry.stat().st_mtime)
        for old in entries[:-_KEPT]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        logger.warning("features could not be stored in %s: %s", path.parent, error)
        with contextlib.suppress(OSError):
            draft.unlink()
