"""How far all ranks are with what may take minutes: each pins a note every half second, rank 0 reads them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from engine.worker.messages import Working
from engine.worker.thread_watch import ThreadWatch

_EVERY_S = 0.5
SILENT_S = 30.0
"""A rank whose note has not changed for this long hangs; one that reads a large file still counts its notes up."""


class Note(msgspec.Struct, frozen=True):
    """One rank's: `beat` counts notes, `step` counts stages since the preparation began. `still` counts notes since its
    work was last seen to get on (counted instead of measured, because a machine that is short of processors gives none
    of its threads time), `where` is the place in the program where it is; `is_over` once that is done."""

    beat: int
    step: int
    stage: str
    done: float
    total: float
    unit: str
    still: int = 0
    where: str = ""
    is_over: bool = False


@dataclass(frozen=True, kw_only=True)
class Standstill:
    """Ranks that have not got on for `seconds`: `rank` if it is one that says nothing, -1 if it is all of them."""

    rank: int
    seconds: float
    detail: str


class Board(Protocol):
    """What `engine.worker.lockstep.Lockstep` offers."""

    rank: int
    size: int

    def note(self, name: str, text: bytes) -> None:
        """Pin this rank's note."""
        ...

    def notes(self, name: str) -> dict[int, bytes]:
        """All ranks' notes."""
        ...


class OwnBoard:
    """The board of a rank that works on its own."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._text = b""

    def note(self, name: str, text: bytes) -> None:
        """See `Board`."""
        self._text = text

    def notes(self, name: str) -> dict[int, bytes]:
        """See `Board`."""
        return {0: self._text} if self._text else {}


_NOTHING_YET = Note(0, 0, "libraries", 0.0, 1.0, "")


def slowest(notes: Mapping[int, Note], ranks: int) -> Working:
    """Where the preparation as a whole is: where the last of the `ranks` is."""
    if len(notes) < ranks:
        notes = {**notes, -1: _NOTHING_YET}
    note = min(notes.values(), key=lambda note: (note.step, note.done / note.total if note.total else 0.0))
    return Working(stage=note.stage, done=note.done, total=note.total, unit=note.unit)


class ProgressBoard:
    """A `Progress` for one piece of work on one rank; a context. `tell`, on rank 0, gets what the engine is to know at
    least once a second; `on_standstill` is called when a rank says nothing any more, or when no rank gets on: then all
    have stood in one place for `still_s`, as in a collective that one of them never comes to. Ranks that wait for one
    that loads or compiles are left alone. Both are called from the thread that this starts."""

    def __init__(
        self,
        board: Board,
        name: str,
        tell: Callable[[Working], None] | None = None,
        on_standstill: Callable[[Standstill], None] | None = None,
        *,
        still_s: float = 60.0,
        watch_this_thread: bool = False,
    ) -> None:
        self._board, self._name, self._tell, self._on_standstill = board, name, tell, on_standstill
        self._still_s = still_s
        self._watch = ThreadWatch(threading.get_ident()) if watch_this_thread else None
        self._now = _NOTHING_YET
        self._has_news = False
        self._still = 0
        self._beat = 0
        self._beats: dict[int, tuple[int, float]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `engine.generators.base.Progress`; never raises, since one rank alone cannot stop."""
        step = self._now.step + (stage != self._now.stage)
        self._has_news = True
        self._now = Note(0, step, stage, float(done), float(total), unit)

    def __enter__(self) -> ProgressBoard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._pin(is_over=True)  # the others may still be at it

    def _run(self) -> None:
        while not self._is_over.wait(_EVERY_S if self._beat else 0.0):
            self._look()
            self._pin()
            if self._tell is not None:
                self._collect()

    def _look(self) -> None:
        if self._watch is None:
            return
        gets_on, self._has_news = self._watch.look() or self._has_news, False
        self._still = 0 if gets_on else self._still + 1

    def _pin(self, *, is_over: bool = False) -> None:
        self._beat += 1
        where = self._watch.where if self._watch is not None else ""
        note = msgspec.structs.replace(self._now, beat=self._beat, still=self._still, where=where, is_over=is_over)
        self._board.note(self._name, msgspec.json.encode(note))

    def _collect(self) -> None:
        assert self._tell is not None
        notes = {rank: msgspec.json.decode(text, type=Note) for rank, text in self._board.notes(self._name).items()}
        self._tell(slowest(notes, self._board.size))
        standstill = self._silent(notes) or self._standing(notes)
        if standstill is not None and self._on_standstill is not None:
            self._on_standstill(standstill)

    def _silent(self, notes: Mapping[int, Note]) -> Standstill | None:
        now_s = time.monotonic()
        for rank, note in notes.items():
            beat, since_s = self._beats.get(rank, (0, now_s))
            if note.beat != beat:
                self._beats[rank] = (note.beat, now_s)
            elif now_s - since_s > SILENT_S and not note.is_over:
                return Standstill(rank=rank, seconds=SILENT_S, detail=f"rank {rank} was last at {note.where}")
        return None

    def _standing(self, notes: Mapping[int, Note]) -> Standstill | None:
        """A rank that has not pinned a note yet is at work on something else."""
        at_work = {rank: note for rank, note in notes.items() if not note.is_over}
        if len(notes) < self._board.size or not at_work:
            return None
        if min(note.still for note in at_work.values()) * _EVERY_S < self._still_s:
            return None
        places = "; ".join(f"rank {rank} stands at {note.where}" for rank, note in sorted(at_work.items()))
        return Standstill(rank=-1, seconds=self._still_s, detail=places)
