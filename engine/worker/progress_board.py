"""How far all ranks are with a preparation: each pins a note every half second, rank 0 reads them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from engine.worker.messages import Working

_EVERY_S = 0.5
SILENT_S = 30.0
"""A rank whose note has not changed for this long hangs; one that reads a large file still counts its notes up."""


class Note(msgspec.Struct, frozen=True):
    """One rank's: `beat` counts notes, `step` counts stages since the preparation began."""

    beat: int
    step: int
    stage: str
    done: float
    total: float
    unit: str


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
    """A `Progress` for one preparation on one rank; a context. `tell`, on rank 0, gets what the engine is to know at
    least once a second; `on_silent` gets the number of a rank that says nothing any more. Both are called from the
    thread that this starts."""

    def __init__(
        self,
        board: Board,
        name: str,
        tell: Callable[[Working], None] | None = None,
        on_silent: Callable[[int], None] | None = None,
    ) -> None:
        self._board, self._name, self._tell, self._on_silent = board, name, tell, on_silent
        self._now = _NOTHING_YET
        self._beats: dict[int, tuple[int, float]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `engine.generators.base.Progress`; never raises, since one rank alone cannot stop."""
        step = self._now.step + (stage != self._now.stage)
        self._now = Note(0, step, stage, float(done), float(total), unit)

    def __enter__(self) -> ProgressBoard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        beat = 0
        while not self._is_over.wait(_EVERY_S if beat else 0.0):
            beat += 1
            self._board.note(self._name, msgspec.json.encode(msgspec.structs.replace(self._now, beat=beat)))
            if self._tell is not None:
                self._collect()

    def _collect(self) -> None:
        assert self._tell is not None
        notes = {rank: msgspec.json.decode(text, type=Note) for rank, text in self._board.notes(self._name).items()}
        self._tell(slowest(notes, self._board.size))
        now_s = time.monotonic()
        for rank, note in notes.items():
            beat, since_s = self._beats.get(rank, (0, now_s))
            if note.beat != beat:
                self._beats[rank] = (note.beat, now_s)
            elif now_s - since_s > SILENT_S and self._on_silent is not None:
                self._on_silent(rank)
