"""What one rank has and does, command by command."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import threading
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np

from engine.generators.base import Generator
from engine.worker import faults
from engine.worker.channel import LineClosed
from engine.worker.ending import leave, report
from engine.worker.engine_line import EngineLine, NoFrames, SlotWriter
from engine.worker.memory import SlotMemory, pixels_in, portrait_of
from engine.worker.messages import (
    WIRE_VERSION,
    Beat,
    Discard,
    Done,
    Exit,
    Generate,
    Hello,
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
from engine.worker.progress_board import OwnBoard, ProgressBoard, Standstill

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
        )
        self._open: Open | None = None
        self._memory: SlotMemory | None = None
        self._streams: dict[int, Generator] = {}
        self._warm: set[tuple[int, int]] = set()
        """Streams and economies of which a chunk has been made: from the second on, seconds count."""
        self._group: Any = None
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
        try:
            command = self.line.commands.get(timeout=_IDLE_S)
        except queue.Empty:
            command = Tick(number=0)
        if isinstance(command, Prepare) and self._foresee(command):
            return self._next()
        command, extra = command if isinstance(command, tuple) else (command, self._extra_of(command))
        if self.size > 1:
            self.lockstep.say(command, extra)
        return command, extra

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
        elif isinstance(command, Prepare):
            self._prepare(command, extra)
        elif isinstance(command, Generate):
            self._generate(command, extra)
        elif isinstance(command, Reset):
            self._streams[command.stream].reset()
            self._say(Done(number=command.number))
        elif isinstance(command, Discard):
            stream = self._streams.pop(command.stream, None)
            if stream is not None:
                stream.close()
            self._say(Done(number=command.number))

    def _begin(self, command: Open) -> None:
        self._open = command
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
        for stream in self._streams.values():
            stream.close()
        self.lockstep.leave()

    # ------------------------------------------------------------------------------------------------------- streams

    def _foresee(self, command: Prepare) -> bool:
        """For a further stream beside one that runs: do in a thread what rank 0 can do alone, so that frames go on.

        False if there is nothing of that kind; else the command comes again when that is done, with its pixels.
        """
        generator = self._new_generator() if self._streams else None
        if not hasattr(generator, "foresee"):
            return False
        pixels = self._extra_of(command)
        threading.Thread(
            target=self._look_ahead, args=(generator, command, pixels), name="foresee", daemon=True
        ).start()
        return True

    def _look_ahead(self, generator: Any, command: Prepare, pixels: np.ndarray) -> None:
        assert self.line is not None
        try:
            with ProgressBoard(OwnBoard(), "foresee", self.line.send) as progress:
                generator.foresee(portrait_of(command.portrait, pixels), progress)
        except Exception as error:
            logger.exception("a further stream cannot be begun")
            fault = faults.fault_from(error, self.rank, self._timeout_s)
            with contextlib.suppress(LineClosed):
                self.line.send(Refused(number=command.number, fault=fault))
        else:
            self.line.commands.put((command, pixels))

    def _prepare(self, command: Prepare, pixels: np.ndarray) -> None:
        self.lockstep.set_patience(is_loading=True)
        tell = self.line.send if self.line is not None else None
        with self._watched(f"progress{command.number}", tell) as progress:
            generator = self._new_generator()
            self._streams[command.stream] = generator
            notices = generator.prepare(portrait_of(command.portrait, pixels), command.size, progress)
            spec = generator.spec
            self.lockstep.agree(f"{spec.width}x{spec.height} {spec.chunk}"[:64], "picture size")
            self.lockstep.agree(str(getattr(generator, "fingerprint", "")), "model files")
        self.lockstep.set_patience(is_loading=False)
        self._say(Done(number=command.number, notices=notices_as_data(notices)))

    def _new_generator(self) -> Generator:
        assert self._open is not None
        module, _, name = self._open.generator.partition(":")
        kind = getattr(import_module(module), name)
        accepted = signature(kind).parameters
        options = dict(self._open.options)
        if "device" in accepted:
            options["device"] = _own_device(str(options.get("device", "auto")))
        if "group" in accepted:
            options["group"] = self._rank_group()
        return kind(seed=self._open.seed, fps=self._open.fps, **options)

    def _rank_group(self) -> Any:
        """Made once: a new one for every stream would leave its sockets behind."""
        if self._group is None:
            self._group = import_module("engine.parallel.launch").rank_group()
        return self._group

    # -------------------------------------------------------------------------------------------------------- frames

    def _generate(self, command: Generate, extra: np.ndarray) -> None:
        """The first chunk of its kind may compile for minutes: there, ranks that stand still are given up instead."""
        stream, kind = self._streams[command.stream], (command.stream, command.economy)
        chunk, writer = chunk_of(command, extra.view(np.float32)), self._writer(command)
        if kind in self._warm:
            stream.generate(chunk, writer)
        else:
            self.lockstep.set_patience(is_loading=True)
            line = self.line
            with self._watched(f"first{command.number}", line and (lambda _: line.send(Beat()))):
                stream.generate(chunk, writer)
            self.lockstep.set_patience(is_loading=False)
            self._warm.add(kind)
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

    def _watched(self, name: str, tell: Any) -> ProgressBoard:
        """Something that may take minutes on all ranks; this thread is the one that does it."""
        return ProgressBoard(
            self.lockstep, name, tell, self._give_up if tell else None, still_s=self._still_s, watch_this_thread=True
        )

    def _give_up(self, standstill: Standstill) -> None:
        error = faults.hangs(standstill.seconds, detail=standstill.detail)
        report(fault_of(error, standstill.rank), self.lockstep, self.line)
        leave(1)


def _own_device(wanted: str) -> str:
    """This rank's own GPU, unless another kind of device is wanted."""
    import torch

    if wanted not in ("auto", "cuda") or not torch.cuda.is_available():
        return wanted
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.cuda.set_device(device)
    return device
