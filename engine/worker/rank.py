"""The rank program: one process per GPU, all doing the same; rank 0 also talks to the engine.

Started by the engine's supervisor, or by torchrun on several machines:
`torchrun ... -m engine.worker.rank --engine SOCKET`. RANK, WORLD_SIZE and LOCAL_RANK come from the environment.
Exit status: 0 told to leave, 1 a failure that has been recorded, 3 the engine is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np

from engine.errors import GeneratorError
from engine.generators.base import Generator
from engine.log import set_up_logging
from engine.worker import faults
from engine.worker.channel import Channel, LineClosed, connect, key_from_environment
from engine.worker.memory import SlotMemory, pixels_in, portrait_of
from engine.worker.messages import (
    WIRE_VERSION,
    Credit,
    Discard,
    Done,
    Exit,
    Fault,
    FrameReady,
    Generate,
    Hello,
    Open,
    Opened,
    Prepare,
    Refused,
    Reset,
    Tick,
    ToRank,
    chunk_of,
    fault_of,
    notices_as_data,
)
from engine.worker.progress_board import SILENT_S, OwnBoard, ProgressBoard

logger = logging.getLogger(__name__)

_IDLE_S = 30.0
"""So often rank 0 says that there is nothing to do."""
_OTHERS_SPEAK_S = 0.5
_ENGINE_GONE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to leave; the exit status."""
    options = _parser().parse_args(arguments)
    _end_with_parent()
    set_up_logging()
    rank = int(os.environ["RANK"])
    program: RankProgram | None = None
    line: EngineLine | None = None
    try:
        if rank == 0:
            line = EngineLine(connect(options.engine, key_from_environment(), ToRank, options.wait_s))
        program = RankProgram(rank, int(os.environ["WORLD_SIZE"]), options, line)
        program.serve()
        return 0
    except LineClosed:
        return _ENGINE_GONE
    except BaseException as error:
        logger.error("rank %d failed", rank, exc_info=error)
        _report(faults.fault_from(error, rank, options.timeout_s), program, line)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.worker.rank", description="One rank of a group.")
    parser.add_argument("--engine", required=True, metavar="SOCKET", help="where the engine waits for rank 0")
    parser.add_argument("--store", default="", metavar="FILE", help="rendezvous file; without it torchrun's store")
    parser.add_argument("--timeout-s", type=float, default=20.0, help="a collective that takes longer is an error")
    parser.add_argument("--load-timeout-s", type=float, default=1800.0, help="the same while a model is loaded")
    parser.add_argument("--wait-s", type=float, default=600.0, help="how long to wait for the engine")
    return parser


class EngineLine:
    """Rank 0's end of the line. A thread takes what comes: commands into a queue, credits into another; when the
    engine is gone it ends the process, whatever that is doing."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.commands: queue.Queue[Any] = queue.Queue()
        self.credits: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._listen, name="engine-line", daemon=True).start()

    def send(self, message: Any) -> None:
        """Raises `LineClosed`."""
        self._channel.send(message)

    def _listen(self) -> None:
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, Credit):
                    self.credits.put(message.slot)
                else:
                    self.commands.put(message)
        except LineClosed:
            _leave(_ENGINE_GONE)
        except Exception:
            logger.exception("the engine said something that cannot be understood")
            _leave(1)


class RankProgram:
    """What one rank has and does, command by command."""

    def __init__(self, rank: int, size: int, options: argparse.Namespace, line: EngineLine | None) -> None:
        from engine.worker.lockstep import Lockstep  # here: loading torch takes seconds, and the engine is waiting

        self.rank, self.size, self.line, self._timeout_s = rank, size, line, options.timeout_s
        self.lockstep = Lockstep(
            rank=rank,
            size=size,
            store=options.store,
            timeout_s=options.timeout_s,
            load_timeout_s=options.load_timeout_s,
        )
        self._open: Open | None = None
        self._memory: SlotMemory | None = None
        self._scratch = np.empty((0, 0, 3), np.uint8)
        self._streams: dict[int, Generator] = {}
        self._group: Any = None
        self._is_loading = True
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
        self._scratch = np.empty((command.height, command.width, 3), np.uint8)
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

    def _prepare(self, command: Prepare, pixels: np.ndarray) -> None:
        self.lockstep.set_patience(is_loading=True)
        self._is_loading = True
        tell, on_silent = (self.line.send, self._give_up) if self.line is not None else (None, None)
        with ProgressBoard(self.lockstep, f"progress{command.number}", tell, on_silent) as progress:
            generator = self._new_generator()
            self._streams[command.stream] = generator
            notices = generator.prepare(portrait_of(command.portrait, pixels), command.size, progress)
            spec = generator.spec
            self.lockstep.agree(f"{spec.width}x{spec.height} {spec.chunk}"[:64], "picture size")
            self.lockstep.agree(str(getattr(generator, "fingerprint", "")), "model files")
        self._say(Done(number=command.number, notices=notices_as_data(notices)))

    def _new_generator(self) -> Generator:
        assert self._open is not None
        module, _, name = self._open.generator.partition(":")
        kind = getattr(import_module(module), name)
        accepted = signature(kind).parameters
        options = dict(self._open.options)
        if "device" in accepted:
            options["device"] = self._device(str(options.get("device", "auto")))
        if "group" in accepted:
            options["group"] = self._rank_group(options.get("device", ""))
        return kind(seed=self._open.seed, fps=self._open.fps, **options)

    def _device(self, wanted: str) -> str:
        """This rank's own GPU, unless another kind of device is wanted."""
        import torch

        if wanted not in ("auto", "cuda") or not torch.cuda.is_available():
            return wanted
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        return device

    def _rank_group(self, device: str) -> Any:
        """Made once: a new one for every stream would leave its sockets behind."""
        if self._group is None:
            self._group = import_module("engine.parallel.launch").rank_group()
        return self._group

    def _generate(self, command: Generate, extra: np.ndarray) -> None:
        stream = self._streams[command.stream]
        writer = _NoFrames(self._scratch) if self.line is None else self._slot_writer(command)
        stream.generate(chunk_of(command, extra.view(np.float32)), writer)
        if self._is_loading:  # the first chunk may compile; from the second on, seconds count
            self._is_loading = False
            self.lockstep.set_patience(is_loading=False)
        self._say(Done(number=command.number, notices=notices_as_data(stream.take_notices())))

    def _slot_writer(self, command: Generate) -> _SlotWriter:
        assert self.line is not None and self._memory is not None
        return _SlotWriter(self._memory, self.line, command.number, self._timeout_s)

    def _say(self, message: Done) -> None:
        if self.line is not None:
            self.line.send(message)

    def _give_up(self, rank: int) -> None:
        fault = fault_of(faults.hangs(SILENT_S, detail=f"rank {rank}"), rank)
        _report(fault, self, self.line)
        _leave(1)

    def _exit(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self.lockstep.leave()


class _SlotWriter:
    """A `FrameWriter` over the slots that are rank 0's; each frame is announced at once."""

    def __init__(self, memory: SlotMemory, line: EngineLine, number: int, timeout_s: float) -> None:
        self._memory, self._line, self._number, self._timeout_s = memory, line, number, timeout_s
        self._slot: int | None = None

    def next_image(self) -> np.ndarray:
        if self._slot is None:
            try:
                self._slot = self._line.credits.get(timeout=self._timeout_s)
            except queue.Empty:
                raise GeneratorError("The engine does not take the frames.", code="worker.engine_hangs") from None
        return self._memory.picture(self._slot)

    def commit(self, frame: int) -> None:
        assert self._slot is not None
        slot, self._slot = self._slot, None
        self._line.send(FrameReady(number=self._number, slot=slot, frame=frame))


class _NoFrames:
    """A `FrameWriter` for the ranks whose frames nobody needs."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        pass


def _report(fault: Fault, program: RankProgram | None, line: EngineLine | None) -> None:
    """Tell everybody who can still listen; what another rank says counts more than that it is gone."""
    with contextlib.suppress(OSError):
        faults.record(fault)
    if program is not None and program.size > 1:
        if not fault.is_consequence:
            with contextlib.suppress(Exception):
                program.lockstep.note("fault", _as_json(fault))
        elif line is not None:
            fault = _cause(fault, program)
    if line is not None:
        with contextlib.suppress(LineClosed):
            line.send(fault)


def _cause(fault: Fault, program: RankProgram) -> Fault:
    deadline_s = time.monotonic() + _OTHERS_SPEAK_S
    while time.monotonic() < deadline_s:
        said = program.lockstep.faults()
        if said:
            return said[0]
        time.sleep(0.05)
    return fault


def _as_json(fault: Fault) -> bytes:
    import msgspec

    return msgspec.json.encode(fault)


def _end_with_parent() -> None:
    """The launcher must not leave ranks behind, not even when it is killed."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            _leave(_ENGINE_GONE)
    elif sys.platform != "win32":
        threading.Thread(target=_watch_parent, args=(parent,), name="parent-watch", daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    _leave(_ENGINE_GONE)


def _leave(status: int) -> None:
    """At once: libraries that wait for other ranks when they are unloaded must not keep this one."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
