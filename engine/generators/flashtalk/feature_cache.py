"""What prompt and portrait become is kept on disk, so that a second start needs neither the encoders nor the weights
that only set-up uses.

A key is the hash of everything that made an entry: inputs and weights. Entries are written beside and moved into
place; one that cannot be read, or whose checksum differs, is made again; the oldest go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.generators.flashtalk.quantization.tensor_file import TensorFileWriter, file_bytes, remove_abandoned
from engine.paths import cache_folder, private_folder

logger = logging.getLogger(__name__)

_KEPT = 200
_SAMPLE_BYTES = 1 << 20
_SPARE_BYTES = 1 << 29
"""What is left free on the disk."""
_CHECKSUM = "crc32"


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


def features_folder() -> Path:
    """In the user's cache."""
    return cache_folder() / "flashtalk"


def remember(key: str, make: Callable[[], Tensor], folder: Path | None = None) -> Tensor:
    """The tensor stored under `key`, or what `make` returns, stored for the next time. A full disk only costs time."""
    path = (folder or features_folder()) / f"{key}.safetensors"
    found = read_entry(path, ("features",))
    if found is not None:
        return found["features"]
    features = make().cpu().contiguous()
    if write_entry(path, {"features": features}):
        remove_oldest(path.parent, most=_KEPT)
    return features


def read_entry(path: Path, names: tuple[str, ...]) -> dict[str, Tensor] | None:
    """The tensors of an entry, in memory, which must be called `names`; None, with a line in the log unless it is just
    not there, if it cannot be used. It counts as used now."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            told = (file.metadata() or {}).get(_CHECKSUM)
            tensors = {name: file.get_tensor(name).clone() for name in names}
        if told != _checksum(tensors):
            raise SafetensorError("its checksum differs")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("what is stored in %s cannot be read and is made again: %s", path, error)
        return None
    with contextlib.suppress(OSError):  # a cache that others own can be read all the same
        os.utime(path)
    return tensors


def write_entry(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Store tensors of the host for this user alone, whole or not at all; where that fails a line in the log says so.
    Whether they are stored."""
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    writer: TensorFileWriter | None = None
    try:
        private_folder(path.parent)
        remove_abandoned(path.parent)
        needed, free = file_bytes(layout), shutil.disk_usage(path.parent).free
        if free < needed + _SPARE_BYTES:
            raise OSError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free")
        writer = TensorFileWriter(path, layout, {"format": "pt", _CHECKSUM: _checksum(tensors)})
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.close()
    except OSError as error:
        logger.warning("features could not be stored in %s: %s", path.parent, error)
        if writer is not None:
            writer.discard()
        return False
    return True


def remove_oldest(folder: Path, *, most: int | None = None, most_bytes: int | None = None) -> None:
    """Delete entries that were not used for the longest time until there are at most so many, or so many bytes. The
    newest stays."""
    entries = []
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process was faster
            status = path.stat()
            entries.append((status.st_mtime, path, status.st_size))
    entries.sort(reverse=True)
    total = 0
    for number, (_, path, size) in enumerate(entries):
        total += size
        is_too_much = (most is not None and number >= most) or (most_bytes is not None and total > most_bytes)
        if is_too_much and number:
            with contextlib.suppress(OSError):  # another process may have it open
                path.unlink()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        plain = tensors[name].contiguous().flatten().view(torch.uint8)
        value = zlib.crc32(plain.numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"
