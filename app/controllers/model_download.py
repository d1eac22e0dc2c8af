"""The model of the photographic generator: what it would take, fetching it, and using it when it is there."""

from __future__ import annotations

import time
from collections import deque
from enum import Enum

from PySide6.QtCore import QObject, Signal

from app.controllers.broadcast import BroadcastController
from app.engine_client.client import EngineClient
from engine.protocol import messages as m

MODEL = "flashtalk-14b"
"""What FlashTalk needs; the engine adds what that needs itself."""

_SPEED_OVER_S = 10.0
_CANCELLED = "cancelled"


class Stage(Enum):
    """What was asked of the engine last, and what came of it."""

    NOTHING = "nothing"
    LOOKING = "looking"
    PLANNED = "planned"
    NOT_PLANNED = "not planned"
    DOWNLOADING = "downloading"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    THERE = "there"


class ModelDownload(QObject):
    """One download at a time, beside the picture; `changed` follows whatever changes below. On the GUI thread.

    When all of it is there and was waited for it is taken up by itself; not in a call or a recording, which would
    stop for it: then when that is over, or when asked (`take_up`). A download goes on in the engine that comes after
    one that was lost.
    """

    changed = Signal()

    def __init__(self, client: EngineClient, broadcast: BroadcastController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._client, self._broadcast = client, broadcast
        self.stage = Stage.NOTHING
        self.plan: m.ModelPlanned | None = None
        self.problem: m.Reason | None = None
        self.progress: m.ModelProgressed | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._is_recording = False
        client.model_planned.connect(self._on_planned)
        client.model_progressed.connect(self._on_progressed)
        client.model_downloaded.connect(self._on_downloaded)
        client.recording_changed.connect(self._on_recording)
        client.ready.connect(self._on_ready)
        client.lost.connect(self._on_lost)
        broadcast.model_missing_changed.connect(self._on_missing_changed)
        broadcast.camera_wanted_changed.connect(lambda _is_on: self._take_up_if_free())

    @property
    def missing(self) -> m.Reason | None:
        """Why FlashTalk, which was chosen, does not make the picture; None while it does not lack its model."""
        return self._broadcast.model_missing

    @property
    def is_downloading(self) -> bool:
        """Whether bytes are on their way."""
        return self.stage in (Stage.DOWNLOADING, Stage.STOPPING)

    @property
    def speed(self) -> float:
        """Bytes a second lately, 0 while nobody knows."""
        if len(self._recent) < 2:
            return 0.0
        (since_s, since), (now_s, now) = self._recent[0], self._recent[-1]
        return max(0.0, (now - since) / (now_s - since_s)) if now_s - since_s > 1.0 else 0.0

    def look_up(self) -> None:
        """Find out what would be fetched, and under which licence."""
        if not self.is_downloading:
            self._enter(Stage.LOOKING)
            self._client.send(m.PlanModel, self._refused_as(Stage.NOT_PLANNED), name=MODEL)

    def begin(self) -> None:
        """Fetch it; the user has agreed to the licences."""
        if not self.is_downloading:
            self.progress = None
            self._recent.clear()
            self._enter(Stage.DOWNLOADING)
            self._client.send(m.DownloadModel, self._refused_as(Stage.FAILED), name=MODEL)

    def stop(self) -> None:
        """End the download soon; what has arrived is kept."""
        if self.stage is Stage.DOWNLOADING:
            self._enter(Stage.STOPPING)
            self._client.send(m.StopDownload)

    def take_up(self) -> None:
        """Use it now."""
        self._broadcast.take_up_model()

    def _refused_as(self, stage: Stage):
        def on_reply(error: m.Reason | None) -> None:
            if error and error.code != "engine.lost":
                self._enter(stage, error)

        return on_reply

    def _on_planned(self, event: m.ModelPlanned) -> None:
        if self.stage is not Stage.LOOKING:
            return
        if event.error:
            self._enter(Stage.NOT_PLANNED, event.error)
            return
        self.plan = event
        self._enter(Stage.PLANNED if event.parts else Stage.THERE)
        self._take_up_if_free()

    def _on_progressed(self, event: m.ModelProgressed) -> None:
        now_s = time.monotonic()
        if self.progress is None or event.stage != self.progress.stage:
            self._recent.clear()
        self._recent.append((now_s, event.done_bytes))
        while now_s - self._recent[0][0] > _SPEED_OVER_S:
            self._recent.popleft()
        self.progress = event
        self.changed.emit()

    def _on_downloaded(self, event: m.ModelDownloaded) -> None:
        if event.error is None:
            self._enter(Stage.THERE)
            self._take_up_if_free()
        elif event.error.code == _CANCELLED:
            self._enter(Stage.STOPPED)
        else:
            self._enter(Stage.FAILED, event.error)

    def _take_up_if_free(self) -> None:
        if self.stage is Stage.THERE and not self._broadcast.is_camera_wanted and not self._is_recording:
            self.take_up()

    def _on_recording(self, event: m.RecordingChanged) -> None:
        self._is_recording = event.is_recording
        self._take_up_if_free()

    def _on_missing_changed(self) -> None:
        if self.missing is not None and self.stage is Stage.THERE:
            self.stage = Stage.NOTHING  # it is not, or not any more
        self.changed.emit()

    def _on_lost(self, _reason: m.Reason, _pause_ms: int) -> None:
        self._is_recording = False
        if self.stage is Stage.STOPPING:
            self._enter(Stage.STOPPED)
        elif self.stage is Stage.LOOKING:
            self._enter(Stage.NOTHING)

    def _on_ready(self, _hello: m.Hello) -> None:
        if self.stage is Stage.DOWNLOADING:
            self._client.send(m.DownloadModel, self._refused_as(Stage.FAILED), name=MODEL)

    def _enter(self, stage: Stage, problem: m.Reason | None = None) -> None:
        self.stage, self.problem = stage, problem
        self.changed.emit()
