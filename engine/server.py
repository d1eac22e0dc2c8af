"""The control loop of the engine process: commands in on standard input, events out on standard output."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO

from engine.audio.hotplug import devices_now
from engine.audio.virtual_microphone import virtual_microphone_label
from engine.errors import ProtocolError, StandinError, UsageError
from engine.generators.factory import describe_portrait, generator_names, handles_text
from engine.model_store.downloads import Downloads
from engine.portrait.annotations import store_annotation
from engine.portrait.load import load_portrait
from engine.protocol.codec import MAX_LINE_BYTES, decode_command, encode, reason_of
from engine.protocol.line_writer import LineWriter
from engine.protocol.messages import (
    PROTOCOL_VERSION,
    AnalysePortrait,
    AnyCommand,
    ApplyFix,
    DevicesListed,
    DownloadModel,
    Event,
    Examination,
    Examine,
    Examined,
    Goodbye,
    Hello,
    ListDevices,
    Noticed,
    Ping,
    PlanModel,
    PortraitAnalysed,
    Progressed,
    Reason,
    Reply,
    SetCamera,
    SetCanvas,
    SetMuted,
    SetPortrait,
    SetSound,
    SetSource,
    SetTalking,
    SetVoiceOut,
    Shutdown,
    Start,
    StartRecording,
    Stats,
    Stop,
    StopDownload,
    StopRecording,
    StoreHandles,
    SyncTest,
    TakeSnapshot,
)
from engine.stream import sync_test
from engine.stream.broadcast import Broadcast

logger = logging.getLogger(__name__)

_LEAVE_WITHIN_S = 2.0
_LAST_WORDS_S = 1.0
_OUR_OWN = -1
"""Id of commands that the server gives itself; nobody waits for a reply."""

_QUICK = (Ping, SetMuted, SetTalking, Shutdown, PlanModel, DownloadModel, StopDownload)
"""What takes no time, or begins what does; in order."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A session has come to its end by itself; another one may be running when that is dealt with."""

    broadcast: Broadcast
    id: int = _OUR_OWN


class Server:
    """Reads commands until the end of input, executes them in order on a thread of their own (muting, talking,
    downloads and shutting down at once), and answers each with exactly one reply. `serve` returns the process's exit
    status."""

    def __init__(self, commands: BinaryIO, events: BinaryIO, *, exit_now: Callable[[int], object] = os._exit) -> None:
        self._exit_now = exit_now
        self._input = commands
        self._writer = LineWriter(events)
        self._broadcast: Broadcast | None = None
        self._sync_test: sync_test.SyncTest | None = None
        self._downloads = Downloads(self.emit)
        self._work: queue.Queue[AnyCommand | _Ended | None] = queue.Queue()
        self._is_leaving = threading.Event()
        self._handlers: dict[type, Callable] = {
            Start: self._start,
            Stop: lambda c: self._stop(),
            _Ended: lambda c: self._stop() if self._broadcast is c.broadcast else None,
            SetPortrait: lambda c: self._live().set_portrait(c.portrait),
            SetSource: lambda c: self._live().set_source(c.source),
            SetCamera: lambda c: self._live().set_camera(c.camera),
            SetVoiceOut: lambda c: self._live().set_voice_out(c.voice_out),
            SetCanvas: lambda c: self._live().set_canvas(c.canvas),
            SetMuted: lambda c: self._live().set_muted(c.is_muted),
            SetTalking: lambda c: self._live().set_talking(c.is_talking),
            SetSound: lambda c: self._live().set_sound(c.sound),
            StartRecording: lambda c: self._live().start_recording(c.path, may_replace=c.may_replace),
            StopRecording: lambda c: self._live().stop_recording(),
            TakeSnapshot: lambda c: self._live().take_snapshot(c.path),
            SyncTest: self._test_sync,
            ListDevices: lambda c: self.emit(list_devices()),
            AnalysePortrait: self._analyse,
            StoreHandles: self._store_handles,
            Examine: lambda c: self._beside("doctor", self._examine),
            ApplyFix: self._apply_fix,
            PlanModel: lambda c: self._downloads.plan(c.name),
            DownloadModel: lambda c: self._downloads.begin(c.name),
            StopDownload: lambda c: self._downloads.stop(),
            Ping: lambda c: None,
            Shutdown: lambda c: self._leave(),
        }

    def serve(self) -> int:
        """Until end of input or `Shutdown`; everything is given back within two seconds then, or the process ends
        without it (the system takes back devices and shared memory of a process that is gone)."""
        self.emit(
            Hello(
                protocol_version=PROTOCOL_VERSION,
                engine_version=_version(),
                pid=os.getpid(),
                generators=list(generator_names()),
            )
        )
        worker = threading.Thread(target=self._execute_all, name="commands", daemon=True)
        worker.start()
        watcher = threading.Thread(target=self._watch_end, name="end-of-file", daemon=True)
        watcher.start()
        for line in _lines(self._input):
            self._take(line)
            if self._is_leaving.is_set():
                break
        self._leave()
        worker.join(_LEAVE_WITHIN_S)
        self.emit(Goodbye(reason=Reason(code="engine.ended", message="The engine has ended.")))
        self._writer.flush(_LAST_WORDS_S)
        return 0

    def emit(self, event: Event) -> None:
        """Send one event; never waits for who reads. One that is gone is no error, the end of input follows."""
        self._writer.write(encode(event), is_passing=isinstance(event, Stats))

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            command = decode_command(line)
        except (ProtocolError, UsageError) as error:
            logger.warning("refused: %s", error)
            number = _id_in(line)
            if number is None:
                self.emit(Noticed(reason=reason_of(error), is_error=True))
            else:
                self.emit(Reply(id=number, error=reason_of(error)))
            return
        if isinstance(command, Stop):
            self._cancel()
        if isinstance(command, _QUICK):
            self._execute(command)
        else:
            self._work.put(command)

    def _execute_all(self) -> None:
        while (command := self._work.get()) is not None:
            self._execute(command)
        self._stop()

    def _execute(self, command: AnyCommand | _Ended) -> None:
        error = None
        try:
            self._handlers[type(command)](command)
        except StandinError as caught:
            error = reason_of(caught)
        except Exception as caught:  # the edge of the process: told, logged, and the loop goes on
            logger.exception("the command %s failed", type(command).__name__)
            sentence = f"That failed because of an internal error: {caught}."
            error = reason_of(StandinError(sentence, code="internal"))
        if not isinstance(command, _Ended):
            self.emit(Reply(id=command.id, error=error))

    def _live(self) -> Broadcast:
        if self._broadcast is None:
            raise UsageError("No session is running.", code="session.none", hint="Start one first.")
        return self._broadcast

    def _start(self, command: Start) -> None:
        if self._broadcast is not None:
            raise UsageError("A session is running already.", code="session.running", hint="Stop it first.")
        broadcast = self._broadcast = Broadcast(command.settings, self.emit)
        try:
            broadcast.start()
        except BaseException:
            self._broadcast = None
            raise
        ended = threading.Thread(target=self._stop_at_end, args=(broadcast,), name="end", daemon=True)
        ended.start()

    def _stop_at_end(self, broadcast: Broadcast) -> None:
        """A file that has been spoken ends its session."""
        broadcast.has_ended.wait()
        self._work.put(_Ended(broadcast=broadcast))

    def _stop(self) -> None:
        broadcast, self._broadcast = self._broadcast, None
        if broadcast is not None:
            broadcast.stop()
            broadcast.has_ended.set()

    def _test_sync(self, command: SyncTest) -> None:
        if self._broadcast is not None:
            raise UsageError(
                "The sync test plays clicks, which those in your call would hear.",
                code="sync.session_running",
                hint="Stop the session first.",
            )
        test = sync_test.SyncTest(
            command.voice_out, command.microphone, seconds=command.seconds, is_stored=command.is_stored
        )
        self._sync_test = test
        try:
            if self._is_leaving.is_set():
                return
            self.emit(test.run(_EmittedProgress(self.emit)))
        finally:
            self._sync_test = None

    def _analyse(self, command: AnalysePortrait) -> None:
        portrait = load_portrait(command.portrait)
        found = describe_portrait(portrait)
        advice = [*portrait.notices, *found.advice]
        self.emit(
            PortraitAnalysed(
                portrait=command.portrait,
                width=portrait.image.shape[1],
                height=portrait.image.shape[0],
                has_face=found.has_face,
                handles=found.handles,
                advice=[Reason(code=n.code, message=n.message, hint=n.hint) for n in advice],
            )
        )

    def _store_handles(self, command: StoreHandles) -> None:
        portrait = load_portrait(command.portrait)
        name, text = handles_text(portrait, command.handles)
        store_annotation(portrait.digest, name, text)

    def _beside(self, name: str, work: Callable[[], None]) -> None:
        """Work that takes seconds and changes no session, on a thread of its own; other commands go on."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def _examine(self) -> None:
        from engine.diagnosis.system import System
        from engine.doctor import examine

        broadcast = self._broadcast
        system = System(own_cameras=broadcast.camera_devices if broadcast is not None else frozenset())
        self.emit(Examined(findings=[Examination(**asdict(finding)) for finding in examine(system)]))

    def _apply_fix(self, command: ApplyFix) -> None:
        from engine.diagnosis.fixes import fix_for

        fix = fix_for(command.code)

        def apply() -> None:
            try:
                done = Reason(code="doctor.fixed", message=fix.apply())
                self.emit(Noticed(reason=done))
            except StandinError as error:
                self.emit(Noticed(reason=reason_of(error), is_error=True))
            self._examine()

        self._beside("doctor", apply)

    def _leave(self) -> None:
        if not self._is_leaving.is_set():
            self._is_leaving.set()
            self._downloads.stop()
            self._cancel()
            self._work.put(None)

    def _cancel(self) -> None:
        """Make what takes long end soon; from any thread."""
        for work in (self._broadcast, self._sync_test):
            if work is not None:
                work.cancel()

    def _watch_end(self) -> None:
        """Whatever hangs, the process is gone two seconds after the window."""
        self._is_leaving.wait()
        threading.Event().wait(_LEAVE_WITHIN_S)
        logger.error("giving everything back took longer than %g s: leaving without", _LEAVE_WITHIN_S)
        self._exit_now(1)


class _EmittedProgress:
    """Progress as events."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        self._emit(Progressed(stage=stage, done=done, total=total, unit=unit))


def list_devices() -> DevicesListed:
    """Everything that sound and picture can come from and go to, with reasons where there is nothing."""
    from engine.sinks.virtual_camera import list_cameras

    microphones, outputs, audio_reason = [], [], None
    try:
        microphones, outputs = devices_now()
    except StandinError as error:
        audio_reason = reason_of(error)
    microphone, microphone_reason = "", None
    try:
        microphone = virtual_microphone_label(outputs)
    except StandinError as error:
        microphone_reason = reason_of(error)
    cameras, cameras_reason = list_cameras()
    return DevicesListed(
        microphones=microphones,
        voice_outs=outputs,
        cameras=cameras,
        cameras_reason=cameras_reason,
        audio_reason=audio_reason,
        virtual_microphone=microphone,
        virtual_microphone_reason=microphone_reason,
    )


def serve_on_stdio() -> int:
    """`standin serve`: standard output belongs to the protocol alone; a stray print lands on standard error."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr
    return Server(sys.stdin.buffer, events).serve()


def _lines(source: BinaryIO) -> Iterator[bytes]:
    """Lines until the end; of one that is too long, as much as shows that it is."""
    while line := source.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(MAX_LINE_BYTES + 1)
        yield line


def _id_in(line: bytes) -> int | None:
    """The id of a command that could not be decoded, so that its sender is not left waiting."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        number = json.loads(line).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return number if type(number) is int and abs(number) < 1 << 63 else None


def _version() -> str:
    try:
        return version("standin")
    except PackageNotFoundError:
        return "0"
