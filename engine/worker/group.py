"""The ranks of one group as the engine sees them: started together, asked together, ended together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import GeneratorError, StandinError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.media import SAMPLE_RATE_HZ, AudioChunk, Notice, Portrait
from engine.worker import faults
from engine.worker.channel import Channel, LineClosed
from engine.worker.launcher import AwaitedRanks, Launch, LocalRanks
from engine.worker.memory import PortraitMemory, SlotMemory
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
    Reset,
    Working,
    fault_of,
    notices_from_data,
    portrait_data,
)

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 0.25
_START_S = 180.0
_SILENT_S = 40.0
"""While a stream is prepared, rank 0 speaks at least once a second, and gives up on another one after 30."""
_REASON_S = 1.0
_LEAVE_S = 3.0
_LEAST_PATIENCE_S = 4.0
_PATIENCE = 4.0
"""A frame that takes this many times the longest that one has taken will not come."""


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """What makes a group: two streams with equal settings share one. `options` are the generator's own as JSON.

    `ranks` processes are started here on `gpus` (as in CUDA_VISIBLE_DEVICES, empty for all); or torchrun's come to
    the socket `ranks_at`. A collective may take `timeout_s`, and `load_timeout_s` while a model is loaded.
    """

    generator: str
    seed: int
    fps: int
    options: tuple[tuple[str, Any], ...]
    spec: GeneratorSpec
    ranks: int = 1
    gpus: str = ""
    ranks_at: str = ""
    timeout_s: float = 20.0
    load_timeout_s: float = 1800.0


class RankProcesses:
    """One group. Any thread may ask; they take turns. After a failure it is of no more use: `is_usable` is false,
    everything it had is given back, and the next preparation makes another."""

    def __init__(self, settings: GroupSettings) -> None:
        self.settings = settings
        self.is_usable = True
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._launch: Launch | None = None
        self._channel: Channel | None = None
        self._memory: SlotMemory | None = None
        self._ending: threading.Thread | None = None
        self._number = 0
        self._warm: set[int] = set()
        self._longest_s = 0.0
        self._unwanted: list[int] = []

    @property
    def pids(self) -> dict[int, int]:
        """Process numbers by rank, of ranks that were started here."""
        return dict(self._launch.pids) if isinstance(self._launch, LocalRanks) else {}

    def prepare(self, stream: int, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Start the ranks unless they run, and begin a stream in all of them. Raises what a rank raised,
        `GeneratorError`, or `Cancelled` from `progress`, which ends the group."""
        teller = _Teller(progress)
        teller.now = Working(stage="ranks", done=0.0, total=float(self.settings.ranks), unit="ranks")
        with self._my_turn(teller):
            if self._channel is None:
                self._start(teller)
            self._send_unwanted()
            pixels = PortraitMemory(portrait)
            try:
                command = Prepare(
                    number=self._next_number(),
                    stream=stream,
                    portrait=portrait_data(portrait),
                    memory=pixels.name,
                    size=size,
                )
                return self._ask(command, lambda: _SILENT_S, teller)
            finally:
                pixels.close()

    def generate(self, stream: int, chunk: AudioChunk, frames: FrameWriter) -> list[Notice]:
        """One chunk: each frame goes into `frames` as it comes. Raises `GeneratorError` or what a rank raised."""
        with self._my_turn():
            assert self._memory is not None
            self._send_unwanted()
            command = Generate(
                number=self._next_number(),
                stream=stream,
                first_frame=chunk.first_frame,
                frames=chunk.frames,
                first_sample=chunk.first_sample,
                samples=self._memory.put_samples(np.asarray(chunk.samples, np.float32)),
                is_discontinuous=chunk.is_discontinuous,
            )
            is_first = stream not in self._warm  # it may compile, and tells nothing about the next ones
            notices = self._ask(command, lambda: self._patience_s(is_first), None, frames, is_measured=not is_first)
            self._warm.add(stream)
            return notices

    def reset(self, stream: int) -> None:
        """The stream begins anew."""
        with self._my_turn():
            self._ask(Reset(number=self._next_number(), stream=stream), lambda: self._patience_s(is_first=False))

    def discard(self, stream: int) -> None:
        """The ranks need not keep this stream; they are told with the next command. Never waits."""
        self._unwanted.append(stream)

    def close(self) -> None:
        """End the ranks: at once if they are at work, else in their own order. Waits until nothing is left; safe to
        call twice and from any thread."""
        if self._turn.acquire(blocking=False):
            try:
                self._let_leave()
            finally:
                self._turn.release()
        else:
            self._stopping.set()
            with self._turn:
                self._end()
        if self._ending is not None:
            self._ending.join()

    # ------------------------------------------------------------------------------------------------- one at a time

    @contextlib.contextmanager
    def _my_turn(self, teller: _Teller | None = None) -> Iterator[None]:
        while not self._turn.acquire(timeout=_LOOK_EVERY_S):
            if teller is not None:
                teller.tell()
        try:
            if not self.is_usable:
                raise GeneratorError("The ranks have been stopped.", code="worker.stopped")
            yield
        except BaseException:
            # Whatever it was, some ranks may be in the middle of something.
            self._end()
            raise
        finally:
            self._turn.release()

    def _start(self, teller: _Teller) -> None:
        settings, spec = self.settings, self.settings.spec
        if settings.ranks_at:
            self._launch = AwaitedRanks(settings.ranks_at)
        else:
            self._launch = LocalRanks(
                ranks=settings.ranks,
                gpus=settings.gpus,
                timeout_s=settings.timeout_s,
                load_timeout_s=settings.load_timeout_s,
            )
        self._channel = self._line(teller)
        samples = -(-SAMPLE_RATE_HZ * (spec.chunk.frames + 1) // spec.chunk.fps) + spec.chunk.lookahead_samples
        # A whole chunk, so that rank 0 never waits for the engine inside one.
        form = {"width": spec.width, "height": spec.height, "slots": spec.chunk.frames, "samples": samples}
        self._memory = SlotMemory(**form)
        command = Open(
            number=self._next_number(),
            generator=settings.generator,
            seed=settings.seed,
            fps=settings.fps,
            options=dict(settings.options),
            memory=self._memory.name,
            **form,
        )
        self._ask(command, lambda: _START_S, teller)
        self._memory.forget_name()

    def _line(self, teller: _Teller) -> Channel:
        """The line to rank 0, once all ranks have found each other."""
        assert self._launch is not None
        wait_s = self.settings.load_timeout_s if self.settings.ranks_at else _START_S
        deadline_s = time.monotonic() + wait_s
        channel = None
        while channel is None:
            self._check(deadline_s, wait_s)
            teller.tell()
            channel = self._launch.wait(_LOOK_EVERY_S)
        self._channel = channel
        while not channel.poll(_LOOK_EVERY_S):
            self._check(deadline_s, wait_s)
            teller.tell()
        hello = self._received()
        if isinstance(hello, Fault):
            raise self._explained(hello)
        if not isinstance(hello, Hello) or hello.version != WIRE_VERSION:
            raise GeneratorError(
                "The ranks are of another version of Standin.",
                code="worker.version",
                hint="Install the same version everywhere.",
            )
        logger.info("%d ranks have started", hello.ranks)
        return channel

    def _ask(
        self,
        command: Any,
        limit_s: Callable[[], float],
        teller: _Teller | None = None,
        frames: FrameWriter | None = None,
        *,
        is_measured: bool = False,
    ) -> list[Notice]:
        """Give rank 0 a command and take what comes until it is carried out."""
        self._send(command)
        assert self._channel is not None
        heard_s = time.monotonic()
        while True:
            has_more = self._channel.poll(_LOOK_EVERY_S)
            if self._stopping.is_set():
                raise GeneratorError("The ranks were stopped.", code="worker.stopped")
            if not has_more:
                self._check(heard_s + limit_s(), limit_s())
            else:
                message = self._received()
                now_s = time.monotonic()
                if is_measured:
                    self._longest_s = max(self._longest_s, now_s - heard_s)
                heard_s = now_s
                if isinstance(message, Done | Opened) and message.number == command.number:
                    return notices_from_data(message.notices) if isinstance(message, Done) else []
                self._take(message, frames, teller)
            if teller is not None:
                teller.tell()

    def _take(self, message: Any, frames: FrameWriter | None, teller: _Teller | None) -> None:
        if isinstance(message, Fault):
            raise self._explained(message)
        if isinstance(message, Working) and teller is not None:
            teller.now = message
        elif isinstance(message, FrameReady) and frames is not None:
            assert self._memory is not None
            np.copyto(frames.next_image(), self._memory.picture(message.slot))
            self._send(Credit(slot=message.slot))
            frames.commit(message.frame)

    def _patience_s(self, is_first: bool) -> float:
        if is_first:
            return self.settings.load_timeout_s
        return min(max(_LEAST_PATIENCE_S, _PATIENCE * self._longest_s), self.settings.timeout_s)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _send_unwanted(self) -> None:
        unwanted, self._unwanted = self._unwanted, []
        for stream in unwanted:
            self._send(Discard(number=self._next_number(), stream=stream))

    def _send(self, message: Any) -> None:
        assert self._channel is not None
        try:
            self._channel.send(message)
        except LineClosed:
            raise self._explained(None) from None

    def _received(self) -> Any:
        assert self._channel is not None
        try:
            return self._channel.receive()
        except LineClosed:
            raise self._explained(None) from None

    def _check(self, deadline_s: float, limit_s: float) -> None:
        """Raises if there is nothing to wait for any more."""
        assert self._launch is not None
        if self._stopping.is_set():
            raise GeneratorError("The ranks were stopped.", code="worker.stopped")
        fault = self._launch.fault()
        if fault is not None:
            raise fault.as_error()
        if time.monotonic() > deadline_s:
            raise faults.hangs(limit_s)

    def _explained(self, fault: Fault | None) -> StandinError:
        """The best explanation: a rank's own words, what its process ended with, or only that it is gone."""
        assert self._launch is not None
        known = [fault] if fault is not None else []
        if fault is None or fault.is_consequence:
            told = self._launch.wait_fault(_REASON_S)
            known = [told, *known] if told is not None else known
        cause = faults.cause_of(known)
        if cause is None:
            lost = GeneratorError("The connection to the ranks was lost.", code="worker.rank_lost")
            cause = fault_of(lost)
        return cause.as_error()

    # ---------------------------------------------------------------------------------------------------------- ending

    def _let_leave(self) -> None:
        """Ask the ranks to go, and give them a moment."""
        if self._channel is not None and self.is_usable:
            with contextlib.suppress(StandinError, LineClosed):
                self._channel.send(Exit(number=self._next_number()))
                deadline_s = time.monotonic() + _LEAVE_S
                while time.monotonic() < deadline_s:
                    if self._channel.poll(_LOOK_EVERY_S):
                        self._channel.receive()  # until it is closed
        self._end()

    def _end(self) -> None:
        """Give everything back; what takes time is done by a thread, because somebody waits for the next picture."""
        if not self.is_usable:
            return
        self.is_usable = False
        if self._channel is not None:
            self._channel.close()
        if self._memory is not None:
            self._memory.close()
        if self._launch is not None:
            self._ending = threading.Thread(target=self._launch.end, name="ranks-end")
            self._ending.start()


class _Teller:
    """Repeats the latest progress: that is also how work is cancelled about which there is no news."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told_s = 0.0
        self.now: Working | None = None

    def tell(self) -> None:
        now_s = time.monotonic()
        if self.now is None or now_s - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = now_s
        self._progress.update(self.now.stage, self.now.done, self.now.total, self.now.unit)
