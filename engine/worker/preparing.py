"""A further stream on one rank: prepared in pieces, between the chunks of the streams that run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from engine.generators.base import Generator, Progress
from engine.generators.pieces import Piece
from engine.media import Notice
from engine.worker import faults
from engine.worker.memory import portrait_of
from engine.worker.messages import Fault, Prepare, Working

if TYPE_CHECKING:
    from engine.worker.lockstep import Lockstep

logger = logging.getLogger(__name__)

SlowWork = Callable[[str], AbstractContextManager[Progress]]
"""Makes a place to do something in that may take minutes, by its name."""


class PieceFailed(Exception):
    """The same on every rank: one of them could not make a piece, and the others have been told in time."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Preparation:
    """One stream that is not ready yet. All ranks make the same calls in the same order, from one thread."""

    def __init__(self, command: Prepare, pixels: Any, generator: Any, lockstep: Lockstep, slow_work: SlowWork) -> None:
        """`generator` has `prepare_in_pieces` (see `engine.generators.pieces`)."""
        self.number, self.stream = command.number, command.stream
        self.generator: Generator = generator
        self.notices: list[Notice] | None = None
        """Once it is over."""
        self._lockstep, self._slow_work = lockstep, slow_work
        self._news = _News()
        self._made = 0
        portrait = portrait_of(command.portrait, pixels)
        self._pieces = generator.prepare_in_pieces(portrait, command.size, self._news)
        self._next: Piece = next(self._pieces)

    @property
    def next_name(self) -> str:
        """What kind of piece is next."""
        return self._next.name

    @property
    def working(self) -> Working | None:
        """How far it is, as it was told last."""
        return self._news.now

    def make_piece(self) -> None:
        """The next one. Raises `PieceFailed` if nothing but this preparation has suffered, else what went wrong."""
        piece, fault = self._next, None
        is_harmless = piece.is_alone or self._lockstep.size == 1
        self._made += 1
        try:
            with self._place_for(piece):
                self._advance()
        except Exception as error:
            if not is_harmless:
                raise
            logger.exception("a further stream cannot be prepared")
            fault = faults.fault_from(error, self._lockstep.rank, self._lockstep.timeout_s)
        if is_harmless:
            fault = self._lockstep.first_fault(f"piece{self.number}.{self._made}", fault)
        if fault is not None:
            raise PieceFailed(fault)

    def close(self) -> None:
        """Give back what has been made so far."""
        self._pieces.close()
        self.generator.close()

    def _advance(self) -> None:
        try:
            self._next = next(self._pieces)
        except StopIteration as end:
            self.notices = end.value

    @contextlib.contextmanager
    def _place_for(self, piece: Piece):
        if not piece.is_slow:
            yield
            return
        with self._slow_work(f"piece{self.number}.{self._made}") as board:
            self._news.board = board
            try:
                yield
            finally:
                self._news.board = None


class _News:
    """The generator's `Progress`: of a slow piece all ranks' counts, of the others, which they make in step, this one's
    is enough."""

    def __init__(self) -> None:
        self.board: Progress | None = None
        self.now: Working | None = None

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`; never raises, since one rank alone cannot stop."""
        self.now = Working(stage=stage, done=float(done), total=float(total), unit=unit)
        if self.board is not None:
            self.board.update(stage, done, total, unit)
