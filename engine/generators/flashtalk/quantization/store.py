"""8-bit weights kept on disk: made once from a checkpoint, then read instead of its 16-bit ones.

A file is named after the content of the checkpoint, the scheme and its version. It holds the quantised layers alone;
what stays wide is read from the checkpoint. One file of each scheme is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.generators.flashtalk.quantization.scheme import Scheme, quantize_weight
from engine.generators.flashtalk.quantization.tensor_file import (
    Layout,
    TensorFileWriter,
    file_bytes,
    remove_abandoned,
)
from engine.model_store.quantized import quantized_folder
from engine.paths import private_folder

logger = logging.getLogger(__name__)

_SAMPLE_BYTES = 4096
_SPARE_BYTES = 1 << 30
"""What is left free on the disk."""


def checkpoint_key(files: Sequence[Path], counts: Callable[[str], bool] = lambda _name: True) -> str:
    """What is in these safetensors files, by their headers and the beginning, middle and end of every tensor, or of
    those whose name `counts`.

    Training and merging change every tensor that they touch all over, so this tells models apart at a thousandth of
    the reading. Raises `OSError`, or `ValueError` for a file of another kind.
    """
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = file.read(length)
            digest.update(f"{path.stat().st_size} {length} ".encode() + header)
            for name, entry in json.loads(header).items():
                if "data_offsets" in entry and counts(name):
                    _add_samples(digest, file, 8 + length, *entry["data_offsets"])
    return digest.hexdigest()


def _add_samples(digest, file: BinaryIO, base: int, start: int, end: int) -> None:
    last = max(start, end - _SAMPLE_BYTES)
    for place in sorted({start, (start + last) // 2, last}):
        file.seek(base + place)
        digest.update(file.read(min(_SAMPLE_BYTES, end - place)))


class QuantizedWeights:
    """The 8-bit weights of a checkpoint while it is loaded, from the stored file or made and stored.

    `shapes` are those of the weights to quantise, by parameter name. `is_stored` says where they come from, `problem`
    why they could not be kept, for people. Use as a context manager, from one thread.
    """

    def __init__(
        self,
        scheme: Scheme,
        files: Sequence[Path],
        shapes: Mapping[str, Sequence[int]],
        *,
        folder: Path | None = None,
        keeps: bool = True,
    ) -> None:
        self._scheme = scheme
        self._layout = _layout(scheme, shapes)
        self._folder = folder or quantized_folder()
        self._path = self._folder / f"{checkpoint_key(files)[:32]}-{scheme.key}.safetensors"
        self._keeps = keeps
        self._writer: TensorFileWriter | None = None
        self._file = None
        self.problem = ""

    @property
    def is_stored(self) -> bool:
        """Whether the weights are read from the stored file."""
        return self._file is not None

    def __enter__(self) -> QuantizedWeights:
        self._file = self._opened()
        if self._file is None and self._keeps:
            self._attempt(self._begin)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)
            self._file = None
        if self._writer is None:
            return
        if kind is None:
            self._attempt(self._finish)
        else:
            self._drop()

    def get(self, name: str, read: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        """The weight called `name` as (8-bit, scales): from the stored file on the host, mapped, or from what `read`
        gives, which is moved to `device` and quantised there."""
        names = _names(name)
        if self._file is not None:
            quantized, scales = (self._file.get_tensor(part) for part in names)
            return quantized, scales
        made = quantize_weight(read().to(device), self._scheme)
        for part, tensor in zip(names, made, strict=True):
            self._attempt(lambda part=part, tensor=tensor: self._writer and self._writer.write(part, tensor))
        return made

    def _opened(self):
        """The stored file if it is whole and of this layout."""
        if not self._path.exists():
            return None
        try:
            file = safe_open(self._path, framework="pt", device="cpu").__enter__()
            found = {name: _entry(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError) as error:
            logger.warning("stored 8-bit weights in %s cannot be read and are made again: %s", self._path, error)
            return None
        expected = {name: (_TYPE_NAMES[dtype], tuple(shape)) for name, (dtype, shape) in self._layout.items()}
        if found != expected:
            logger.warning("stored 8-bit weights in %s are of another layout and are made again", self._path)
            return None
        logger.info("8-bit weights are read from %s", self._path)
        return file

    def _begin(self) -> None:
        needed = file_bytes(self._layout)
        private_folder(self._folder)
        remove_abandoned(self._folder)
        free = shutil.disk_usage(self._folder).free
        if free < needed + _SPARE_BYTES:
            raise OSError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free")
        metadata = {"scheme": self._scheme.key, "format": "pt"}
        self._writer = TensorFileWriter(self._path, self._layout, metadata)

    def _finish(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        for other in self._folder.glob(f"*-{self._scheme.name}-v*.safetensors"):
            if other != self._path:
                with contextlib.suppress(OSError):  # another process may have it open
                    other.unlink()

    def _attempt(self, work: Callable[[], object]) -> None:
        """Without the cache everything works; it is said once that the next start takes as long."""
        try:
            work()
        except OSError as error:
            self.problem = f"{error.strerror or error}"
            logger.warning("8-bit weights could not be stored in %s: %s", self._folder, self.problem)
            self._drop()

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


_TYPE_NAMES = {torch.float8_e4m3fn: "F8_E4M3", torch.int8: "I8", torch.float32: "F32"}


def _entry(rows) -> tuple[str, tuple[int, ...]]:
    return rows.get_dtype(), tuple(rows.get_shape())


def _names(name: str) -> tuple[str, str]:
    base = name.removesuffix(".weight")
    return f"{base}.quantized", f"{base}.scale"


def _layout(scheme: Scheme, shapes: Mapping[str, Sequence[int]]) -> Layout:
    """The matrices first, block after block, as they are streamed; then the scales."""
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layout[_names(name)[0]] = (scheme.dtype, tuple(shape))
    for name, shape in shapes.items():
        layout[_names(name)[1]] = (torch.float32, (shape[0],))
    return layout
