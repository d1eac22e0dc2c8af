"""The chosen microphone: asked for, and known why it is not heard."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.controllers.engine_settings import source_of
from app.engine_client.client import EngineClient
from app.settings.store import SettingsStore
from engine.device_names import same_device
from engine.protocol import messages as m

ABSENT = ("microphone.none", "microphone.missing")
"""Codes of a microphone that is not there: no fault, the portrait rests until it is."""

LOST, BACK = "microphone.lost", "microphone.back"
"""Codes of the notices that a microphone went away while it was heard, and that the engine has taken it again."""


class MicrophoneController(QObject):
    """What `problem` says is about the running session; one that is connected later is taken when it is listed."""

    problem_changed = Signal()
    failed = Signal(object)
    """A microphone that is there cannot be used: Reason."""

    def __init__(self, client: EngineClient, store: SettingsStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._client, self._store = client, store
        self.problem: m.Reason | None = None
        """Why the chosen microphone is not heard, as far as is known."""
        client.noticed.connect(self._on_notice)
        client.devices_listed.connect(self._on_devices)
        client.lost.connect(lambda _reason, _pause_ms: self._set_problem(None))

    def ask(self) -> None:
        """Let the session listen to what the settings say."""
        self._client.send(m.SetSource, self._on_reply, source=source_of(self._store.settings))

    def _on_reply(self, error: m.Reason | None) -> None:
        if error and error.code == "engine.lost":
            return
        self._set_problem(error)
        if error and error.code not in ABSENT:
            self.failed.emit(error)

    def _on_notice(self, event: m.Noticed) -> None:
        if event.reason.code == LOST:
            self._set_problem(event.reason)
        elif event.reason.code == BACK:
            self._set_problem(None)

    def _on_devices(self, event: m.DevicesListed) -> None:
        if self.problem and self.problem.code in (*ABSENT, LOST):
            name = self._store.settings.microphone
            names = [device.name for device in event.microphones]
            if names if not name else same_device(name, names):
                self.ask()

    def _set_problem(self, problem: m.Reason | None) -> None:
        if self.problem != problem:
            self.problem = problem
            self.problem_changed.emit()
