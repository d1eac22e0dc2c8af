"""The ranks among themselves: rendezvous, the same command for all in the same order, and a board for short notes.

Commands go over a group of their own on the CPU (gloo), with a long timeout, since nobody may speak for a while.
Collectives of the model have timeouts in seconds, except while a model is loaded, when ranks differ by minutes.
"""

# pyright: reportPrivateImportUsage=false
# torch documents its stores as torch.distributed.FileStore and so on, but does not list them as exported.

from __future__ import annotations

import contextlib
import logging
import socket
import time
from datetime import timedelta

import msgspec
import numpy as np
import torch
import torch.distributed as dist

from engine.errors import GeneratorError
from engine.worker.faults import spoken
from engine.worker.messages import Fault, Message, RankCommand, decode, encode

logger = logging.getLogger(__name__)

_HEADER = 4  # magic, command number, bytes of the command, bytes that come with it
_MAGIC = 0x52414E4B
_JOIN_S = 120.0
_LOOK_EVERY_S = 0.2


class Lockstep:
    """One rank's place among the others. `store` is a file (one machine), or empty for what torchrun has set up.
    Rank 0 may come up to `wait_s` later than the others: it waits for an engine first.

    Raises `GeneratorError` or what torch raises when the others do not come.
    """

    def __init__(
        self, *, rank: int, size: int, store: str, timeout_s: float, load_timeout_s: float, wait_s: float = 600.0
    ) -> None:
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._timeout, self._load_timeout = timedelta(seconds=timeout_s), timedelta(seconds=load_timeout_s)
        join_s = _JOIN_S if rank == 0 else wait_s + _JOIN_S
        shared = _store(store, size, join_s)
        # While a client of torchrun's store waits for something, it does nothing else: notes have one of their own.
        board = _store(store, size, join_s)
        attempt = "group" if store else str(begin_together(shared, rank, size, join_s))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(attempt, shared),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=_JOIN_S),
        )
        control = dist.new_group(backend="gloo", timeout=self._load_timeout)
        assert isinstance(control, dist.ProcessGroup)
        self._control = control
        self._notes = dist.PrefixStore(f"notes of {attempt}", board)
        self._number = 0

    def say(self, command: Message, extra: np.ndarray | None = None) -> None:
        """Give the other ranks a command and the bytes that belong to it; rank 0 only."""
        extra = np.empty(0, np.uint8) if extra is None else extra.reshape(-1).view(np.uint8)
        data = np.frombuffer(encode(command), np.uint8).copy()
        self._number += 1
        self._spread(torch.tensor([_MAGIC, self._number, len(data), len(extra)]))
        self._spread(torch.from_numpy(data))
        if len(extra):
            self._spread(torch.from_numpy(extra))

    def hear(self) -> tuple[Message, np.ndarray]:
        """The next command and its bytes; the other ranks. Raises `GeneratorError` if it is not the next one."""
        header = self._spread(torch.zeros(_HEADER, dtype=torch.int64)).tolist()
        self._number += 1
        if header[:2] != [_MAGIC, self._number]:
            raise GeneratorError(
                f"Rank {self.rank} was told command {header[1]} when it expected {self._number}.",
                code="worker.out_of_step",
            )
        data = self._spread(torch.empty(header[2], dtype=torch.uint8))
        extra = torch.empty(header[3], dtype=torch.uint8)
        if header[3]:
            self._spread(extra)
        return decode(data.numpy().tobytes(), RankCommand), extra.numpy()

    def meet(self) -> None:
        """Wait until all ranks are here."""
        dist.all_reduce(torch.zeros(1), group=self._control)

    def agree(self, text: str, what: str) -> None:
        """Raise `GeneratorError` on every rank unless all give the same `text` for `what`."""
        mine = torch.zeros(64, dtype=torch.uint8)
        data = text.encode()[:64]
        mine[: len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(all_of_them, mine, group=self._control)
        others = [rank for rank, other in enumerate(all_of_them) if not torch.equal(other, all_of_them[0])]
        if others:
            raise GeneratorError(
                f"Not all ranks have the same {what}: rank {others[0]} differs from rank 0.",
                code="worker.disagree",
                hint="Give every machine the same files.",
                detail=f"rank {self.rank} on {socket.gethostname()}",
            )

    def first_fault(self, name: str, mine: Fault | None) -> Fault | None:
        """What went wrong on the first rank that has a fault to tell, the same on every rank; None if none has.

        All ranks call this at the same point, with a `name` that was never used before."""
        if self.size == 1:
            return mine
        if mine is not None:
            self.note(name, msgspec.json.encode(mine))
            self.notes(name)  # the store answers in order: once it has, the note is there
        count = torch.tensor([mine is not None], dtype=torch.int32)
        dist.all_reduce(count, group=self._control)
        if not count.item():
            return None
        said = self.notes(name)
        return msgspec.json.decode(said[min(said)], type=Fault)

    def set_patience(self, *, is_loading: bool) -> None:
        """From now on the model's collectives may take as long as loading does, or `timeout_s`."""
        timeout = self._load_timeout if is_loading else self._timeout
        # The public API sets a timeout only when a group is made; this one is torch's own for doing it later.
        for group in list(dist.distributed_c10d._world.pg_map):
            if isinstance(group, dist.ProcessGroup) and group is not self._control:
                with contextlib.suppress(AttributeError, RuntimeError):
                    dist.distributed_c10d._set_pg_timeout(timeout, group)

    def note(self, name: str, text: bytes) -> None:
        """Pin a note on the board, which all ranks can read; any thread."""
        self._notes.set(f"{name}/{self.rank}", text.decode())

    def notes(self, name: str) -> dict[int, bytes]:
        """The newest note of that name of each rank that has pinned one."""
        return {
            rank: self._notes.get(f"{name}/{rank}")
            for rank in range(self.size)
            if self._notes.check([f"{name}/{rank}"])
        }

    def faults(self) -> list[Fault]:
        """What other ranks have said before they ended."""
        found = []
        with contextlib.suppress(Exception):  # the board may be gone with the rank that kept it
            for rank, text in self.notes("fault").items():
                if rank != self.rank:
                    found.append(msgspec.json.decode(text, type=Fault))
        return found

    def leave(self) -> None:
        """End the groups, once every rank has been told to."""
        self.meet()
        dist.destroy_process_group()

    def _spread(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.broadcast(tensor, src=0, group=self._control)
        return tensor


def _store(path: str, size: int, wait_s: float) -> dist.Store:
    """A client of its own each time. Raises what torch raises if there is no store within `wait_s`."""
    if path:
        return dist.FileStore(path, size)
    store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=wait_s)))
    return dist.PrefixStore("standin", store)


def begin_together(store: dist.Store, rank: int, size: int, limit_s: float) -> int:
    """The number of the attempt that all ranks begin together now; raises `GeneratorError` after `limit_s`.

    torchrun can keep one store over restarts, where ranks would find what those before them have left. torchrun's own
    count of restarts does not tell attempts apart: on another machine it may be another number."""
    return _called_together(store, size, limit_s) if rank == 0 else _found(store, rank, limit_s)


def _called_together(store: dist.Store, size: int, limit_s: float) -> int:
    """Rank 0 opens an attempt, which begins once all others have come to it."""
    attempt, deadline_s = store.add("attempts", 1), time.monotonic() + limit_s
    while missing := [rank for rank in range(1, size) if not store.check([f"{attempt}/has/{rank}"])]:
        _check_time(deadline_s, limit_s, missing[0])
        time.sleep(_LOOK_EVERY_S)
    store.set(f"{attempt}/begins", "")
    return attempt


def _found(store: dist.Store, rank: int, limit_s: float) -> int:
    """The others come to the newest attempt; one that has begun without this process was for the one before it."""
    mine, deadline_s = 0, time.monotonic() + limit_s
    while True:
        newest = store.add("attempts", 0)
        begins = store.check([f"{newest}/begins"])
        if begins and newest == mine:
            return mine
        if newest not in (0, mine) and not begins:
            store.set(f"{newest}/has/{rank}", "")
            mine = newest
        _check_time(deadline_s, limit_s, 0)
        time.sleep(_LOOK_EVERY_S)


def _check_time(deadline_s: float, limit_s: float, missing: int) -> None:
    if time.monotonic() > deadline_s:
        raise GeneratorError(
            f"Rank {missing} has not come within {spoken(limit_s)}.",
            code="worker.rank_missing",
            hint="Look at what torchrun says on its machine.",
        )
