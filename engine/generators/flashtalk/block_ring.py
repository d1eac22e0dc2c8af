"""Weights of blocks that take turns in a few buffers on the device, copied there while other blocks compute.

The order of things is kept by marks alone: a copy waits until the block that used its buffer last has computed, and a
block computes only once its copy has arrived. Nothing here knows about streams and events; a `Lane` does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Lane(Protocol):
    """Copying beside the computation. Marks are the lane's own."""

    def mark(self) -> Any:
        """Everything that this thread has asked the device to compute so far."""
        ...

    def copy(self, targets: Sequence[Tensor], sources: Sequence[Tensor], after: Any) -> Any:
        """Copy each source to its target once `after` (a mark or None) is reached; a mark of the copies' arrival."""
        ...

    def wait(self, copied: Any) -> None:
        """What this thread computes from now on waits for that mark."""
        ...


class HostLane:
    """For the CPU, where everything happens in the order in which it is asked for."""

    def mark(self) -> None:
        """See `Lane`."""

    def copy(self, targets: Sequence[Tensor], sources: Sequence[Tensor], after: None) -> None:
        """See `Lane`."""
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    def wait(self, copied: None) -> None:
        """See `Lane`."""


class CudaLane:
    """A stream of its own for copies. From pinned memory they run beside the host and the computation; from mapped
    files the host waits for the reading, and the device goes on with what it has been given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def mark(self) -> Any:
        """See `Lane`."""
        return torch.cuda.current_stream(self._device).record_event()

    def copy(self, targets: Sequence[Tensor], sources: Sequence[Tensor], after: Any) -> Any:
        """See `Lane`."""
        if after is None:
            # The buffer is new: whatever its memory was used for before was asked for by the computing stream.
            after = self.mark()
        self._stream.wait_event(after)
        with torch.cuda.stream(self._stream):
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source, non_blocking=True)
        return self._stream.record_event()

    def wait(self, copied: Any) -> None:
        """See `Lane`."""
        torch.cuda.current_stream(self._device).wait_event(copied)


class BlockRing:
    """`sources[i]` are the tensors of block i on the host, `slots` buffers of the same shapes on the device, two at
    least unless there is but one block. Blocks come in the order of `sources`, again and again; any other order is as
    right and slower.

    `enter` and `leave` around everything that computes with a block. Safe to use from several threads: a thread that
    has entered keeps the others out until it leaves.
    """

    def __init__(self, sources: Sequence[Sequence[Tensor]], slots: Sequence[Sequence[Tensor]], lane: Lane) -> None:
        self._sources, self._slots, self._lane = sources, slots, lane
        self._holds: list[int | None] = [None] * len(slots)
        self._copied: list[Any] = [None] * len(slots)
        self._used: list[Any] = [None] * len(slots)
        self._lock = threading.Lock()
        self._inside: tuple[int, int] | None = None
        self.copies = 0
        """How many blocks were copied so far."""
        self.misses = 0
        """How many of them were not there in time to be copied beside another's work."""

    @property
    def slot_count(self) -> int:
        """Buffers on the device."""
        return len(self._slots)

    def enter(self, block: int) -> Sequence[Tensor]:
        """The tensors of `block` on the device, good for what is computed until `leave`."""
        self._lock.acquire()
        try:
            if block not in self._holds:
                self.misses += 1
                self._fetch(block, keep=())
            slot = self._holds.index(block)
            self._lane.wait(self._copied[slot])
            self._inside = (threading.get_ident(), block)
            return self._slots[slot]
        except BaseException:
            self._lock.release()
            raise

    def leave(self, block: int) -> None:
        """All that computes with `block` has been asked for. Begins to copy what comes next. Without effect for a
        thread that has not entered it."""
        if self._inside != (threading.get_ident(), block):
            return
        try:
            self._used[self._holds.index(block)] = self._lane.mark()
            count = min(len(self._slots), len(self._sources))
            wanted = [(block + ahead) % len(self._sources) for ahead in range(1, count + 1)]
            for follower in wanted:
                if follower not in self._holds:
                    self._fetch(follower, keep=wanted)
        finally:
            self._inside = None
            self._lock.release()

    def _fetch(self, block: int, keep: Sequence[int]) -> None:
        """Into a buffer that holds none of `keep`."""
        slot = next(slot for slot, held in enumerate(self._holds) if held is None or held not in keep)
        # Until the copy has been asked for the buffer holds nobody's weights: an error here must not leave wrong ones.
        self._holds[slot] = None
        self._copied[slot] = self._lane.copy(self._slots[slot], self._sources[block], self._used[slot])
        self._holds[slot] = block
        self.copies += 1


def spread(count: int, total: int) -> frozenset[int]:
    """`count` of `total` blocks, as evenly as possible: what stays on the device gives the copies time."""
    return frozenset(block for block in range(total) if (block + 1) * count // total > block * count // total)
