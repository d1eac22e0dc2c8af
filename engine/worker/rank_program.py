"""What one rank has and does, command by command."""

from __future__ import annotations

import argparse
import contextlib
import logging
import queue
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from engine.errors import ProtocolError
from engine.generators.base import Generator
from engine.worker import faults
from engine.worker.channel import LineClosed
from engine.worker.ending import leave, report
from engine.worker.engine_line import EngineLine, NoFrames, SlotWriter
from engine.worker.foresight import Foreseen, Foresight
from engine.worker.making import GeneratorMaker
from engine.worker.memory import SlotMemory, pixels_in, portrait_of
from engine.worker.messages import (
    WIRE_VERSION,
    Beat,
    Discard,
    Done,
    Exit,
    Fault,
    Generate,
    Hello,
    MakePiece,
    Open,
    Opened,
    Prepare,
    Refused,
    Reset,
    Tick,
    chunk_of,
    fault_of,
    notices_as_data,
)
from engine.worker.pacing import Pacer
from engine.worker.preparing import PieceFailed, Preparation
from engine.worker.progress_board import ProgressBoard, Standstill

logger = logging.getLogger(__name__)

_IDLE_S = 30.0
"""So often rank 0 says that there is nothing to do."""


class RankProgram:
    """One rank; `line` is rank 0's. Joins the other ranks; raises what torch raises when they do not come."""

    def __init__(self, rank: int, size: int, options: argparse.Namespace, line: EngineLine | None) -> None:
        from engine.worker.lockstep import Lockstep  # here: loading torch takes seconds, and the engine is waiting

        self.rank, self.size, self.line = rank, size, line
        self._timeout_s, self._still_s = options.timeout_s, options.still_s
        self.lockstep = Lockstep(
            rank=rank,
            size=size,
            store=options.store,
            timeout_s=options.timeout_s,
            load_timeout_s=options.load_timeout_s,
            wait_s=options.wait_s,
        )
        self._open: Open | None = None
        self._maker: GeneratorMaker | None = None
        self._memory: SlotMemory | None = None
        self._streams: dict[int, Generator] = {}
        self._warm: set[tuple[int, int]] = set()
        """Streams and economies of which a chunk has been made: from the second on, seconds count."""
        self._preparing: dict[int, Preparation] = {}
        """By stream; the first of them is worked on."""
        self._foresight = Foresight(line, options.timeout_s) if line is not None else None
        self._foreseen: Generator | None = None
        """On rank 0: the one that has seen the portrait of the next command ahead."""
        self._pacer = Pacer()
        if line is not None:
            line.send(Hello(version=WIRE_VERSION, ranks=size))

    def serve(self) -> None:
        """Carry out commands until `Exit`. Raises whatever they raise: a rank that fails once is of no more use."""
        while True:
            command, extra = self._next()
            if isinstance(command, Exit):
                self._exit()
                return
            self._carry_out(command, extra)

    def _next(self) -> tuple[Any, np.ndarray]:
        if self.line is None:
            return self.lockstep.hear()
        while (wish := self._understood(self._wish(self.line))) is None:
            pass
        if self.size > 1:
            self.lockstep.say(*wish)
        return wish

    def _wish(self, line: EngineLine) -> Any:
        """What the engine asks for, else a piece of what is being prepared if it is time for one, else nothing."""
        while True:
            preparation = next(iter(self._preparing.values()), None)
            wait_s = _IDLE_S if preparation is None else self._pacer.wait_s(preparation.next_name, time.monotonic())
            try:
                return line.commands.get(timeout=wait_s)
            except queue.Empty:
                if preparation is None:
                    return Tick(number=0)
                if wait_s == 0.0:
                    return MakePiece(number=0, stream=preparation.stream)

    def _understood(self, wish: Any) -> tuple[Any, np.ndarray] | None:
        """A command for all ranks with its bytes; None for what rank 0 has seen to, or what nobody wants any more."""
        if isinstance(wish, Prepare):
            return self._first_look(wish)
        assert self._foresight is not None
        if isinstance(wish, Foreseen):
            if not self._foresight.forget(wish.command.stream):
                return None
            self._foreseen = wish.generator
            return self._for_all(wish.command), wish.pixels
        if isinstance(wish, Discard):
            self._foresight.forget(wish.stream)
        return wish, self._extra_of(wish)

    def _first_look(self, command: Prepare) -> tuple[Any, np.ndarray] | None:
        try:
            pixels = self._extra_of(command)
        except ProtocolError as error:  # it was withdrawn before its turn came
            self._refuse(command.number, fault_of(error, self.rank))
            return None
        assert self._maker is not None and self._foresight is not None
        if self._streams and self._maker.can("foresee"):
            self._foresight.begin(self._maker.make(), command, pixels)
            return None
        return self._for_all(command), pixels

    def _for_all(self, command: Prepare) -> Prepare:
        """Beside a stream that runs in pieces, if the generator can do that; rank 0 alone decides."""
        assert self._maker is not None
        in_pieces = bool(self._streams) and self._maker.can("prepare_in_pieces")
        return msgspec.structs.replace(command, in_pieces=in_pieces)

    def _extra_of(self, command: Any) -> np.ndarray:
        """The bytes that belong to a command, out of shared memory."""
        if isinstance(command, Prepare):
            return pixels_in(command.memory, command.portrait)
        if isinstance(command, Generate) and self._memory is not None:
            return self._memory.samples(command.samples)
        return np.empty(0, np.uint8)

    def _carry_out(self, command: Any, extra: np.ndarray) -> None:
        if isinstance(command, Open):
            self._begin(command)
        elif isinstance(command, Prepare) and command.in_pieces:
            self._begin_preparation(command, extra)
        elif isinstance(command, Prepare):
            self._prepare(command, extra)
        elif isinstance(command, MakePiece):
            self._make_piece(self._preparing[command.stream])
        elif isinstance(command, Generate):
            self._generate(command, extra)
        elif isinstance(command, Reset):
            self._streams[command.stream].reset()
            self._say(Done(number=command.number))
        elif isinstance(command, Discard):
            stream = self._streams.pop(command.stream, None) or self._preparing.pop(command.stream, None)
            if stream is not None:
                stream.close()
            self._say(Done(number=command.number))

    def _begin(self, command: Open) -> None:
        self._open, self._maker = command, GeneratorMaker(command)
        if self.line is None:
            return
        self._memory = SlotMemory(
            width=command.width,
            height=command.height,
            slots=command.slots,
            samples=command.samples,
            name=command.memory,
        )
        for slot in range(command.slots):
            self.line.credits.put(slot)
        self.line.send(Opened(number=command.number))

    def _exit(self) -> None:
        for stream in (*self._preparing.values(), *self._streams.values()):
            stream.close()
        self.lockstep.leave()

    # ------------------------------------------------------------------------------------------------------- streams

    def _refuse(self, number: int, fault: Fault) -> None:
        if self.line is not None:
            with contextlib.suppress(LineClosed):
                self.line.send(Refused(number=number, fault=fault))

    def _begin_preparation(self, command: Prepare, pixels: np.ndarray) -> None:
        tell = self.line.send if self.line is not None else None
        self._preparing[command.stream] = Preparation(
            command, pixels, self._generator(), self.lockstep, lambda name: self._slow_work(name, tell)
        )

    def _generator(self) -> Generator:
        """For the command that is carried out."""
        assert self._maker is not None
        generator, self._foreseen = self._foreseen or self._maker.make(), None
        return generator

    def _make_piece(self, preparation: Preparation) -> None:
        name, began_s = preparation.next_name, time.monotonic()
        try:
            preparation.make_piece()
        except PieceFailed as failed:
            del self._preparing[preparation.stream]
            preparation.close()
            self._refuse(preparation.number, failed.fault)
            return
        self._pacer.piece_made(name, began_s=began_s, ended_s=time.monotonic())
        if self.line is not None and preparation.working is not None:
            self.line.send(preparation.working)
        if preparation.notices is not None:
            del self._preparing[preparation.stream]
            self._streams[preparation.stream] = preparation.generator
            self._agree_on(preparation.generator)
            self._say(Done(number=preparation.number, notices=notices_as_data(preparation.notices)))

    def _prepare(self, command: Prepare, pixels: np.ndarray) -> None:
        tell = self.line.send if self.line is not None else None
        with self._slow_work(f"progress{command.number}", tell) as progress:
            generator = self._generator()
            self._streams[command.stream] = generator
            notices = generator.prepare(portrait_of(command.portrait, pixels), command.size, progress)
            self._agree_on(generator)
        self._say(Done(number=command.number, notices=notices_as_data(notices)))

    def _agree_on(self, generator: Generator) -> None:
        spec = generator.spec
        self.lockstep.agree(f"{spec.width}x{spec.height} {spec.chunk}"[:64], "picture size")
        self.lockstep.agree(str(getattr(generator, "fingerprint", "")), "model files")

    # -------------------------------------------------------------------------------------------------------- frames

    def _generate(self, command: Generate, extra: np.ndarray) -> None:
        """The first chunk of its kind may compile for minutes: there, ranks that stand still are given up instead."""
        began_s = time.monotonic()
        stream, kind = self._streams[command.stream], (command.stream, command.economy)
        chunk, writer = chunk_of(command, extra.view(np.float32)), self._writer(command)
        if kind in self._warm:
            stream.generate(chunk, writer)
        else:
            line = self.line
            with self._slow_work(f"first{command.number}", line and (lambda _: line.send(Beat()))):
                stream.generate(chunk, writer)
            self._warm.add(kind)
        if self._open is not None and self.line is not None:
            period_s = command.frames / self._open.fps
            ended_s = time.monotonic()
            self._pacer.chunk_made(asked_s=self.line.asked_s, period_s=period_s, began_s=began_s, ended_s=ended_s)
        self._say(Done(number=command.number, notices=notices_as_data(stream.take_notices())))

    def _writer(self, command: Generate) -> SlotWriter | NoFrames:
        assert self._open is not None
        if self.line is None:
            return NoFrames(self._open.width, self._open.height)
        assert self._memory is not None
        return SlotWriter(self._memory, self.line, command.number, self._timeout_s)

    def _say(self, message: Done) -> None:
        if self.line is not None:
            self.line.send(message)

    @contextlib.contextmanager
    def _slow_work(self, name: str, tell: Any) -> Iterator[ProgressBoard]:
        """Something that may take minutes on all ranks; this thread is the one that does it."""
        board = ProgressBoard(
            self.lockstep, name, tell, self._give_up if tell else None, still_s=self._still_s, watch_this_thread=True
        )
        self.lockstep.set_patience(is_loading=True)
        try:
            with board:
                yield board
        finally:
            self.lockstep.set_patience(is_loading=False)

    def _give_up(self, standstill: Standstill) -> None:
        error = faults.hangs(standstill.seconds, detail=standstill.detail)
        report(fault_of(error, standstill.rank), self.lockstep, self.line)
        leave(1)
