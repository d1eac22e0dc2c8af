"""Pictures between two processes: one writer, any number of readers, the newest wins, none is ever torn.

Layout: a header of 64-bit numbers, then `slots` pictures of RGB bytes. Each slot has two sequence numbers, one set
before its picture is written and one after; a reader that finds them different, or changed while it copied, throws
its copy away. Readers may miss pictures; the writer never waits.
"""

from __future__ import annotations

import sys
from multiprocessing import shared_memory

import numpy as np

from engine.errors import ProtocolError

_MAGIC = 0x5354414E44494E31  # "STANDIN1"
_FIELDS = 8  # magic, width, height, slots, newest sequence number, extra, two unused
_NEWEST, _EXTRA = 4, 5
_SLOTS = 4
_TRIES = 4

_created_here: set[str] = set()


class FrameWriterMemory:
    """The creating side. It owns the memory: `close` removes it from the system."""

    def __init__(self, width: int, height: int) -> None:
        size = _size(width, height, _SLOTS)
        self._memory = shared_memory.SharedMemory(create=True, size=size)
        _created_here.add(self._memory.name)
        self._numbers, self._marks, self._pictures = _views(self._memory, width, height, _SLOTS)
        self._numbers[:] = 0
        self._marks[:] = 0
        self._numbers[1:4] = width, height, _SLOTS
        self._sequence = 0
        self._is_closed = False
        self._numbers[0] = _MAGIC  # last: a reader that sees it sees the rest

    @property
    def name(self) -> str:
        """What a reader attaches to."""
        return self._memory.name

    def write(self, image: np.ndarray, extra: int = 0) -> int:
        """Publish RGB uint8 (height, width, 3) with a number of the caller's; returns its sequence number, from 1."""
        sequence = self._sequence + 1
        slot = sequence % _SLOTS
        self._marks[slot, 0] = sequence
        np.copyto(self._pictures[slot], image)
        self._marks[slot, 2] = extra
        self._marks[slot, 1] = sequence
        self._numbers[_NEWEST] = sequence
        self._sequence = sequence
        return sequence

    def close(self) -> None:
        """Remove the memory; readers that are attached keep what they have. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        del self._numbers, self._marks, self._pictures  # memory that is looked at cannot be closed
        _created_here.discard(self._memory.name)
        self._memory.close()
        self._memory.unlink()


class FrameReader:
    """The attaching side. Raises `ProtocolError` when there is no such memory."""

    def __init__(self, name: str) -> None:
        try:
            self._memory = _attached(name)
        except (FileNotFoundError, ValueError, OSError) as error:
            raise ProtocolError(f"The pictures in shared memory {name} are not there.", detail=str(error)) from error
        header = np.ndarray((_FIELDS,), np.uint64, self._memory.buf)
        magic, width, height, slots = (int(value) for value in header[:4])
        del header
        if magic != _MAGIC or self._memory.size < _size(width, height, slots):
            self._memory.close()
            raise ProtocolError(f"The shared memory {name} holds no pictures of this version.")
        self.width, self.height = width, height
        self._slots = slots
        self._numbers, self._marks, self._pictures = _views(self._memory, width, height, slots)
        self._seen = 0
        self._is_closed = False
        self.missed = 0
        self.extra = 0

    def newest(self, out: np.ndarray | None = None) -> tuple[int, np.ndarray] | None:
        """(sequence number, picture) if there is one that this reader has not had, else None.

        The picture is a copy, in `out` if given (RGB uint8 (height, width, 3)); `extra` is then the writer's number.
        """
        for _ in range(_TRIES):
            sequence = int(self._numbers[_NEWEST])
            if sequence == self._seen:
                return None
            slot = sequence % self._slots
            if int(self._marks[slot, 1]) != sequence:
                continue
            if out is None:
                out = np.empty_like(self._pictures[slot])
            np.copyto(out, self._pictures[slot])
            extra = int(self._marks[slot, 2])
            if int(self._marks[slot, 0]) == sequence:
                self.missed += sequence - self._seen - 1
                self._seen, self.extra = sequence, extra
                return sequence, out
        return None

    def close(self) -> None:
        """Detach; safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            del self._numbers, self._marks, self._pictures
            self._memory.close()


def _size(width: int, height: int, slots: int) -> int:
    return 8 * (_FIELDS + 3 * slots) + slots * width * height * 3


def _views(
    memory: shared_memory.SharedMemory, width: int, height: int, slots: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    numbers: np.ndarray = np.ndarray((_FIELDS,), np.uint64, memory.buf)
    marks: np.ndarray = np.ndarray((slots, 3), np.uint64, memory.buf, offset=8 * _FIELDS)
    start = 8 * (_FIELDS + 3 * slots)
    pictures: list[np.ndarray] = [
        np.ndarray((height, width, 3), np.uint8, memory.buf, offset=start + slot * width * height * 3)
        for slot in range(slots)
    ]
    return numbers, marks, pictures


def _attached(name: str) -> shared_memory.SharedMemory:
    """Attach without becoming an owner: up to Python 3.12 every process that attaches removes the memory when it
    ends (python/cpython issue 82300)."""
    if sys.version_info >= (3, 13):
        return shared_memory.SharedMemory(name=name, track=False)
    memory = shared_memory.SharedMemory(name=name)
    if sys.platform != "win32" and memory.name not in _created_here:
        from multiprocessing import resource_tracker

        resource_tracker.unregister(f"/{memory.name}", "shared_memory")
    return memory
