"""Shared memory between the engine and rank 0: one slot for sound, some for finished frames, one owner each at a time.

The engine makes it and takes its name away as soon as rank 0 is attached; from then on the system frees it with the
last process that looks at it, whatever way that ends. Nothing here waits or locks: messages say who owns what.
"""

from __future__ import annotations

import sys
from multiprocessing import shared_memory

import numpy as np

from engine.errors import ProtocolError
from engine.media import Portrait
from engine.worker.messages import PortraitData

_ALIGN = 64
_made_here: set[str] = set()


class SlotMemory:
    """`slots` RGB uint8 pictures of `width` x `height` px and `samples` float32 samples. Made without a name, else
    attached to. Raises `ProtocolError` if it is not there or too small."""

    def __init__(self, *, width: int, height: int, slots: int, samples: int, name: str | None = None) -> None:
        start = -(-4 * samples // _ALIGN) * _ALIGN
        size = start + slots * width * height * 3
        self._is_named = name is None
        self._memory = _made(size) if name is None else _attached(name, size)
        self._samples = np.ndarray((samples,), np.float32, self._memory.buf)
        self._pictures = np.ndarray((slots, height, width, 3), np.uint8, self._memory.buf, offset=start)
        self._is_closed = False

    @property
    def name(self) -> str:
        """What the other side attaches to."""
        return self._memory.name

    def put_samples(self, samples: np.ndarray) -> int:
        """Put mono float32 sound into its slot; how much it was. Raises `ProtocolError` if it is too long."""
        if len(samples) > len(self._samples):
            raise ProtocolError(f"A chunk of {len(samples)} samples does not fit; {len(self._samples)} do.")
        np.copyto(self._samples[: len(samples)], samples)
        return len(samples)

    def samples(self, count: int) -> np.ndarray:
        """A copy of the first `count` samples."""
        return self._samples[:count].copy()

    def picture(self, slot: int) -> np.ndarray:
        """The memory of a slot, for its owner; not to be kept."""
        return self._pictures[slot]

    def forget_name(self) -> None:
        """Nobody else can attach from now on, and nothing is left when those who are attached end."""
        if self._is_named:
            self._is_named = False
            _unlink(self._memory)

    def close(self) -> None:
        """Detach; safe to call twice. Nothing may look at it any more."""
        if self._is_closed:
            return
        self._is_closed = True
        self.forget_name()
        del self._samples, self._pictures
        self._memory.close()


class PortraitMemory:
    """A portrait's pixels on their way to rank 0, by name; the maker closes it once they have been taken."""

    def __init__(self, portrait: Portrait) -> None:
        parts = [part for part in (portrait.image, portrait.alpha, portrait.person_mask) if part is not None]
        pixels = np.concatenate([np.ascontiguousarray(part, np.uint8).reshape(-1) for part in parts])
        self._memory = _made(len(pixels))
        view: np.ndarray = np.ndarray(pixels.shape, np.uint8, self._memory.buf)
        np.copyto(view, pixels)

    @property
    def name(self) -> str:
        """What rank 0 attaches to."""
        return self._memory.name

    def close(self) -> None:
        """Remove it."""
        self._memory.close()
        _unlink(self._memory)


def pixels_in(name: str, data: PortraitData) -> np.ndarray:
    """A copy of a portrait's pixels, uint8 in one row. Raises `ProtocolError`."""
    memory = _attached(name, pixel_bytes(data))
    try:
        view: np.ndarray = np.ndarray((pixel_bytes(data),), np.uint8, memory.buf)
        return view.copy()
    finally:
        view = np.empty(0, np.uint8)
        memory.close()


def pixel_bytes(data: PortraitData) -> int:
    """How many bytes the pixels take."""
    return data.height * data.width * (3 + data.has_alpha + data.has_mask)


def portrait_of(data: PortraitData, pixels: np.ndarray) -> Portrait:
    """The portrait again; `pixels` as of `pixels_in`."""
    area = data.height * data.width
    shape = (data.height, data.width)
    planes = pixels[3 * area :].reshape(-1, *shape)
    return Portrait(
        image=pixels[: 3 * area].reshape(*shape, 3),
        name=data.name,
        path=data.path,
        digest=data.digest,
        alpha=planes[0] if data.has_alpha else None,
        person_mask=planes[int(data.has_alpha)] if data.has_mask else None,
        annotations=data.annotations,
    )


def _made(size: int) -> shared_memory.SharedMemory:
    memory = shared_memory.SharedMemory(create=True, size=size)
    _made_here.add(memory.name)
    return memory


def _unlink(memory: shared_memory.SharedMemory) -> None:
    _made_here.discard(memory.name)
    memory.unlink()


def _attached(name: str, size: int) -> shared_memory.SharedMemory:
    """Attach without becoming an owner: up to Python 3.12 every process that attaches removes the memory when it
    ends (python/cpython issue 82300)."""
    try:
        if sys.version_info >= (3, 13):
            memory = shared_memory.SharedMemory(name=name, track=False)
        else:
            memory = shared_memory.SharedMemory(name=name)
            if sys.platform != "win32" and name not in _made_here:
                from multiprocessing import resource_tracker

                resource_tracker.unregister(f"/{name}", "shared_memory")
    except (OSError, ValueError) as error:
        raise ProtocolError(f"The shared memory {name} is not there.", detail=str(error)) from error
    if memory.size < size:
        memory.close()
        raise ProtocolError(f"The shared memory {name} has {memory.size} bytes and not {size}.")
    return memory
