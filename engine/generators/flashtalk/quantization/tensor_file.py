"""A safetensors file written tensor by tensor, so that what it holds never has to be in memory at once.

The format: 8 bytes little-endian length of the header, the header as JSON (name -> dtype, shape, data_offsets), then
the tensors' bytes, one after the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
_ALIGNMENT = 8
_ABANDONED_S = 3600.0
"""A draft that nobody has written to for so long has lost its writer."""

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Name -> dtype and shape of every tensor, in the order in which they lie in the file."""


class TensorFileWriter:
    """Writes beside `path` and moves into place in `close`. From one thread; `write` in any order.

    The file is for this user alone, and several processes may write the same one: the last to close has its name.
    Every call may raise `OSError`; then call `discard`.
    """

    def __init__(self, path: Path, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._path, self._layout = path, dict(layout)
        self._draft = path.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._offsets, header = _header(self._layout, metadata)
        self._start = len(header)
        self._missing = set(self._layout)
        handle = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        self._file = os.fdopen(handle, "wb")
        try:
            self._file.write(header)
            self._file.flush()
        except OSError:
            self.discard()
            raise

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, from any device. Raises `ValueError` for one that the layout does not have."""
        dtype, shape = self._layout[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} is not what the file was laid out for")
        self._file.seek(self._start + self._offsets[name][0])
        self._file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def close(self) -> None:
        """Everything is written: let it have its name. Raises `ValueError` if something is missing."""
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors were never written, such as {min(self._missing)}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._draft, self._path)

    def discard(self) -> None:
        """Leave nothing behind; safe at any time."""
        with contextlib.suppress(OSError, ValueError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._draft.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Delete what writers that were killed have left in `folder`, as far as that can be done."""
    for draft in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > _ABANDONED_S:
                draft.unlink()


def file_bytes(layout: Layout) -> int:
    """What the tensors of a layout take."""
    return sum(_bytes_of(*entry) for entry in layout.values())


def _bytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[dict[str, tuple[int, int]], bytes]:
    offsets: dict[str, tuple[int, int]] = {}
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + _bytes_of(dtype, shape)
        offsets[name] = (start, end)
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return offsets, struct.pack("<Q", len(text)) + text
