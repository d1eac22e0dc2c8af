"""The sync test: the session makes room for it, and comes back when it has ended."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.controllers.broadcast import BroadcastController
from app.controllers.engine_settings import voice_out_of
from app.engine_client.client import EngineClient
from engine.protocol import messages as m
from engine.settings import MicrophoneSource

STAGE = "sync test"
_SECONDS = 8.0
_NOT_YET = m.Reason(code="engine.starting", message="Standin is starting again.", hint="Test again in a moment.")


class SyncTestController(QObject):
    """One test at a time, of the voice out that is chosen; `ended` comes once for each `begin`."""

    progressed = Signal(float, float)
    """Seconds that have passed, of how many."""
    measured = Signal(object)
    failed = Signal(object)
    """Why nothing could be measured: Reason. None when it was stopped."""
    ended = Signal()

    def __init__(self, client: EngineClient, broadcast: BroadcastController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._client, self._broadcast = client, broadcast
        self.is_running = self._is_stopped = self._is_asked = False
        client.progressed.connect(self._on_progress)
        client.sync_measured.connect(self.measured)

    def begin(self, microphone: MicrophoneSource | None) -> None:
        """Test with what `microphone` hears; None for the virtual microphone's own other end."""
        if self.is_running:
            return
        if not self._broadcast.is_ready:
            self.failed.emit(_NOT_YET)
            self.ended.emit()
            return
        self.is_running, self._is_stopped, self._is_asked = True, False, False
        self._broadcast.pause(lambda: self._send(microphone))

    def stop(self) -> None:
        """End a running test soon."""
        if self.is_running and not self._is_stopped:
            self._is_stopped = True
            if self._is_asked:  # else it is not begun
                self._client.send(m.Stop)

    def _send(self, microphone: MicrophoneSource | None) -> None:
        voice_out = voice_out_of(self._broadcast.settings)
        if voice_out is None or self._is_stopped:
            self._on_reply(None)
            return
        self._is_asked = True
        self._client.send(
            m.SyncTest, self._on_reply, voice_out=voice_out, microphone=microphone, seconds=_SECONDS
        )  # fmt: skip

    def _on_reply(self, error: m.Reason | None) -> None:
        self.is_running = False
        if error and not self._is_stopped:
            self.failed.emit(error)
        self.ended.emit()
        self._broadcast.resume()

    def _on_progress(self, event: m.Progressed) -> None:
        if self.is_running and event.stage == STAGE:
            self.progressed.emit(event.done, event.total)
