"""Typed commands to the engine, one Qt signal per event, and a new engine when one is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QObject, QTimer, Signal

from app.engine_client.process import EngineProcess, ProcessOutcome
from engine.errors import ProtocolError
from engine.protocol import messages as m
from engine.protocol.codec import decode_event, encode

logger = logging.getLogger(__name__)

OnReply = Callable[["m.Reason | None"], None]
"""Called once with None (done) or a `Reason` (why not), on the GUI thread."""

_LOST = m.Reason(code="engine.lost", message="The engine ended before it answered.")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait for what. The pause before a restart doubles from the first to the longest, and is the first
    again once an engine has been healthy for a while; an engine that leaves more than `silent_pings` pings unanswered
    is ended."""

    first_pause_ms: int = 300
    longest_pause_ms: int = 10_000
    healthy_after_ms: int = 20_000
    hello_within_ms: int = 20_000
    ping_every_ms: int = 3_000
    silent_pings: int = 4


class EngineClient(QObject):
    """Owns the engine process; lives on the GUI thread."""

    ready = Signal(object)
    state_changed = Signal(object)
    progressed = Signal(object)
    noticed = Signal(object)
    preview_opened = Signal(object)
    camera_changed = Signal(object)
    recording_changed = Signal(object)
    stats_received = Signal(object)
    devices_listed = Signal(object)
    portrait_analysed = Signal(object)
    examined = Signal(object)
    voice_out_changed = Signal(object)
    sync_measured = Signal(object)
    model_planned = Signal(object)
    model_progressed = Signal(object)
    model_downloaded = Signal(object)
    lost = Signal(object, int)
    """(Reason, milliseconds until the next start)"""
    closed = Signal()

    def __init__(
        self, process: EngineProcess, parent: QObject | None = None, *, timeouts: Timeouts | None = None
    ) -> None:
        super().__init__(parent)
        self._process = process
        self._process.line_received.connect(self._on_line)
        self._process.ended.connect(self._on_ended)
        self._process.stopped.connect(self.closed)
        self._next_id = 0
        self._waiting: dict[int, OnReply | None] = {}
        self._timeouts = timeouts = timeouts or Timeouts()
        self._pause_ms = timeouts.first_pause_ms
        self._unanswered = 0
        self._is_closing = False
        self._signals = {
            m.StateChanged: self.state_changed, m.Progressed: self.progressed, m.Noticed: self.noticed,
            m.PreviewOpened: self.preview_opened, m.CameraChanged: self.camera_changed,
            m.RecordingChanged: self.recording_changed, m.Stats: self.stats_received,
            m.DevicesListed: self.devices_listed, m.PortraitAnalysed: self.portrait_analysed,
            m.Examined: self.examined, m.VoiceOutChanged: self.voice_out_changed, m.SyncMeasured: self.sync_measured,
            m.ModelPlanned: self.model_planned, m.ModelProgressed: self.model_progressed,
            m.ModelDownloaded: self.model_downloaded,
        }  # fmt: skip
        self._restart = self._timer(0, self._start, is_single=True)
        self._healthy = self._timer(timeouts.healthy_after_ms, self._on_healthy, is_single=True)
        self._hello_guard = self._timer(timeouts.hello_within_ms, self._on_silence, is_single=True)
        self._ping = self._timer(timeouts.ping_every_ms, self._on_ping, is_single=False)

    @property
    def pid(self) -> int:
        """Process id of the engine, 0 while none runs."""
        return self._process.pid

    def start(self) -> None:
        """Start the engine; `ready` follows."""
        self._start()

    def send(self, command: type[m.Command], on_reply: OnReply | None = None, **fields: object) -> None:
        """Send `command(**fields)`; a lost engine answers with a reason as well."""
        self._next_id += 1
        if not self._process.write(encode(command(id=self._next_id, **fields))):
            if on_reply:
                on_reply(_LOST)
            return
        self._waiting[self._next_id] = on_reply

    def close(self) -> None:
        """Begin to end the engine; `closed` follows, at once if none runs. Safe to call twice."""
        self._leave()
        self._process.stop()

    def finish(self) -> None:
        """`close`, and wait for it (at most some seconds): for when no event loop will turn again."""
        self._leave()
        self._process.finish()

    def _leave(self) -> None:
        self._is_closing = True
        self._waiting.clear()
        for timer in (self._restart, self._healthy, self._hello_guard, self._ping):
            timer.stop()

    def _timer(self, interval_ms: int, slot: Callable[[], None], *, is_single: bool) -> QTimer:
        timer = QTimer(self)
        timer.setInterval(interval_ms)
        timer.setSingleShot(is_single)
        timer.timeout.connect(slot)
        return timer

    def _start(self) -> None:
        self._hello_guard.start()
        self._process.start()

    def _on_line(self, line: bytes) -> None:
        if self._is_closing:
            return  # nobody is there to be told
        try:
            event = decode_event(line)
        except ProtocolError as error:
            logger.warning("%s", error)
            return
        self._unanswered = 0
        if isinstance(event, m.Reply):
            on_reply = self._waiting.pop(event.id, None)
            if on_reply:
                on_reply(event.error)
        elif isinstance(event, m.Hello):
            self._on_hello(event)
        elif type(event) in self._signals:
            self._signals[type(event)].emit(event)

    def _on_hello(self, hello: m.Hello) -> None:
        self._hello_guard.stop()
        if hello.protocol_version != m.PROTOCOL_VERSION:
            self.noticed.emit(
                m.Noticed(
                    reason=m.Reason(
                        code="engine.version",
                        message="The engine belongs to another version of Standin.",
                        hint="Install Standin again.",
                    ),
                    is_error=True,
                )
            )
            return
        self._healthy.start()
        self._ping.start()
        self.ready.emit(hello)

    def _on_healthy(self) -> None:
        self._pause_ms = self._timeouts.first_pause_ms

    def _on_ping(self) -> None:
        self._unanswered += 1
        if self._unanswered > self._timeouts.silent_pings:
            self._on_silence()
            return
        self.send(m.Ping)

    def _on_silence(self) -> None:
        logger.warning("the engine is silent and is ended")
        self._process.kill()

    def _on_ended(self, outcome: ProcessOutcome) -> None:
        for timer in (self._healthy, self._hello_guard, self._ping):
            timer.stop()
        self._unanswered = 0
        waiting, self._waiting = self._waiting, {}
        for on_reply in waiting.values():
            if on_reply:
                on_reply(_LOST)
        if self._is_closing:
            return
        pause_ms, self._pause_ms = self._pause_ms, min(2 * self._pause_ms, self._timeouts.longest_pause_ms)
        reason = m.Reason(
            code="engine.ended",
            message=outcome.sentence(),
            hint="It is being started again.",
            detail=outcome.stderr_tail,
        )
        self._restart.start(pause_ms)
        self.lost.emit(reason, pause_ms)
