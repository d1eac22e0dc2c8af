"""Reads what a safetensors file says about itself, without the library and without its tensors.

The format: 8 bytes little-endian length of the header, the header as JSON (name -> dtype, shape, data_offsets), then
the tensors' bytes; the largest end offset and the file's size must agree.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelFilesError

_LARGEST_HEADER_BYTES = 16 << 20
"""A hundred thousand tensors; the format allows 100 MB, which would become gigabytes of Python objects."""
_LARGEST_COUNT = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """dtype as in the file (`BF16`, `F32`, ...) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of the file, by name. Raises `ModelFilesError` if it is truncated or not of this format."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length_bytes = file.read(8)
            length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else 0
            if not 2 <= length <= _LARGEST_HEADER_BYTES:
                raise _damaged(path, "its beginning is not that of a safetensors file")
            text = file.read(length)
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror or error})") from error
    if len(text) < length:
        raise _damaged(path, f"it ends after {size_bytes} bytes, within its header")
    try:
        tensors, end = _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path, "its header cannot be read") from error
    expected = 8 + length + end
    if size_bytes < expected:
        raise _damaged(path, f"it is cut off: {size_bytes} of {expected} bytes are there")
    if size_bytes > expected:
        raise _damaged(path, f"it has {size_bytes - expected} bytes too many")
    return tensors


def _parse(header: Any) -> tuple[dict[str, TensorInfo], int]:
    """Tensors, and where the last one ends, counted from the end of the header."""
    tensors = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = (_count(place) for place in entry["data_offsets"])
        shape = tuple(_count(side) for side in entry["shape"])
        if start > stop or math.prod(shape) > _LARGEST_COUNT:
            raise ValueError(name)
        tensors[name] = TensorInfo(dtype=str(entry["dtype"]), shape=shape)
        end = max(end, stop)
    return tensors, end


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
        raise ValueError("not a count")
    return value


def _damaged(path: Path, why: str) -> ModelFilesError:
    return ModelFilesError(
        f"{path} is damaged: {why}.",
        code="models.damaged_file",
        hint="Copy or download this file again.",
    )
