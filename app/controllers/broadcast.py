"""The session that the window shows: begun when the engine is ready, again when it was lost, changed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.engine_settings import (
    camera_of,
    canvas_of,
    generator_of,
    session_of,
    sound_of,
    source_of,
    voice_out_of,
)
from app.controllers.microphone import MicrophoneController
from app.engine_client.client import EngineClient
from app.settings.schema import AppSettings
from app.settings.store import SettingsStore
from engine.protocol import messages as m
from engine.settings import CameraSettings, VoiceOutSettings

FIRST_SAMPLE = "sample:"
FAULT = "session.internal"
"""Code of the notice that comes before the end of a session that failed; its sentence says why. A session that ends
by itself without one had a sound file that is spoken to its end."""

ENDED = "session.stopped"
"""Code of the reason with which a session ends that did not fail."""

VOICE_OUT_LOST, VOICE_OUT_BACK = "voice_out.lost", "voice_out.back"
"""Codes of the notices that an output is gone, and that the engine plays on it again."""

VOICE_OUT_TOO_SLOW = "voice_out.too_slow"
"""Code of the notice that the voice comes after the picture; another session would have the delay for it."""

_MODEL_IS_MISSING = ("models.absent", "models.partial", "models.damaged")
_SIMPLE = {"generator": "puppet", "generator_options": "{}"}
"""What shows a picture while the model of the chosen generator is not there."""

_AGAIN_AFTER_MS = 1_000
_TRUSTED_AFTER_MS = 60_000


class _Phase(Enum):
    """What was last asked of the engine, as far as it has answered."""

    NONE = "none"
    STARTING = "starting"
    LIVE = "live"
    STOPPING = "stopping"
    AWAY = "away"
    """Put aside with `pause`."""


class BroadcastController(QObject):
    """Keeps the wishes (settings, camera on, muted) and brings the engine in line with them.

    A session that ends by itself is begun again once, after a pause, with the camera if that was wanted; a second end
    within a minute is left to the user (`begin`). A start that fails is not repeated, but where only the model of the
    chosen generator is missing: then the puppet is shown until `take_up_model`, or until another one is chosen.
    """

    settings_changed = Signal(object)
    camera_wanted_changed = Signal(bool)
    availability_changed = Signal()
    """`is_ready`, `is_running` or `is_live` changed."""
    failed = Signal(str, object)
    """(what was tried: "start", "portrait", "source", ..., Reason)"""
    session_over = Signal(object, bool)
    """A live session ended though nobody asked: (Reason, whether it is being begun again)."""
    saved = Signal(str, str)
    model_missing_changed = Signal()

    def __init__(
        self, client: EngineClient, store: SettingsStore, parent: QObject | None = None, *,
        again_after_ms: int = _AGAIN_AFTER_MS, trusted_after_ms: int = _TRUSTED_AFTER_MS,
    ) -> None:  # fmt: skip
        super().__init__(parent)
        self._client, self._store = client, store
        self.is_camera_wanted = self.is_muted = self.is_ready = False
        self._phase = _Phase.NONE
        self._is_ending = self._has_begun_again = False
        self._is_voice_out_away = False
        """Lost, or refused when it was last asked for: choosing it once more asks again."""
        self._is_voice_late = self._is_recording = False
        self._voice_begun_again: VoiceOutSettings | None = None
        """The output for which a session was begun again, which is done once."""
        self._cameras_asked = 0
        self._fault: m.Reason | None = None
        self.model_missing: m.Reason | None = None
        """Why the chosen generator cannot be used, where its model is what it lacks."""
        self.microphone = MicrophoneController(client, store, self)
        self.microphone.failed.connect(lambda reason: self.failed.emit("source", reason))
        self._after_stop: Callable[[], None] | None = None
        self._again = self._timer(again_after_ms, self.begin)
        self._trusted = self._timer(trusted_after_ms, self._on_trusted)
        client.ready.connect(self._on_ready)
        client.lost.connect(self._on_lost)
        client.state_changed.connect(self._on_state)
        client.noticed.connect(self._on_notice)
        client.camera_changed.connect(self._on_camera)
        client.recording_changed.connect(self._on_recording)

    @property
    def settings(self) -> AppSettings:
        """What is kept between runs."""
        return self._store.settings

    @property
    def is_running(self) -> bool:
        """Whether a session is live or on its way there."""
        return self._phase in (_Phase.STARTING, _Phase.LIVE)

    @property
    def is_live(self) -> bool:
        """Whether there is a session to record, mute or show."""
        return self._phase is _Phase.LIVE

    # ------------------------------------------------------------------------------------------------- wishes

    def begin(self) -> None:
        """Begin a session if there is none and the engine is ready."""
        self._again.stop()
        if self.is_ready and self._phase is _Phase.NONE:
            self._begin()

    def change(self, **changes: object) -> None:
        """Keep a wish and bring a running session in line with it."""
        before = self.settings
        self._store.save(replace(before, **changes))
        after = self.settings
        self.settings_changed.emit(after)
        if generator_of(before) != generator_of(after):
            self._set_model_missing(None)
        if self._phase in (_Phase.STOPPING, _Phase.AWAY):
            return  # the next session begins with the new settings
        if self._phase is _Phase.NONE:
            if session_of(before, is_muted=False) != session_of(after, is_muted=False):
                self.begin()  # what could not be shown is another picture now
            return
        if _of_whole_session(before) != _of_whole_session(after):
            self._restart()
            return
        self._follow("portrait", before.portrait, after.portrait, m.SetPortrait, "portrait")
        if source_of(before) != source_of(after):
            self.microphone.ask()
        if self.is_camera_wanted and self.is_live and camera_of(before) != camera_of(after):
            self._send_camera(camera_of(after))
        self._follow_voice_out(voice_out_of(before), voice_out_of(after), is_chosen="voice_out" in changes)
        self._follow("sound", sound_of(before), sound_of(after), m.SetSound, "sound")
        self._follow("canvas", canvas_of(before), canvas_of(after), m.SetCanvas, "canvas")

    def pause(self, then: Callable[[], None]) -> None:
        """End the session for work that needs the devices, call `then`, and let none begin before `resume`."""
        self._again.stop()
        if self._phase in (_Phase.NONE, _Phase.AWAY):
            self._enter(_Phase.AWAY)
            then()
            return
        self._stop(lambda: self._go_away(then))

    def resume(self) -> None:
        """Begin again what `pause` has ended, the camera included."""
        if self._phase is _Phase.AWAY:
            self._enter(_Phase.NONE)
            self.begin()

    def take_up_model(self) -> None:
        """The model that was missing is there: let the chosen generator make the picture."""
        if self.model_missing is None:
            return
        self._set_model_missing(None)
        if self.is_running:
            self._restart()
        else:
            self.begin()

    def set_camera(self, is_on: bool) -> None:
        """Put the picture on air, or take it off."""
        self._want_camera(is_on)
        if self.is_live:
            self._send_camera(camera_of(self.settings) if is_on else None)
            self._make_up_for_late_voice()
        elif is_on:
            self.begin()

    def set_muted(self, is_muted: bool) -> None:
        """At once, sound in the pipe included; a session that is on its way there begins so."""
        self.is_muted = is_muted
        if self.is_live:
            self._client.send(m.SetMuted, self._fails_as("mute"), is_muted=is_muted)

    def set_talking(self, is_talking: bool) -> None:
        """The push-to-talk key went down or up."""
        if self.is_live:
            self._client.send(m.SetTalking, self._fails_as("talking"), is_talking=is_talking)

    def examine(self) -> None:
        """`Examined` follows, or `failed` of "doctor"."""
        self._client.send(m.Examine, self._fails_as("doctor"))

    def apply_fix(self, code: str) -> None:
        """`Examined` follows, or `failed` of "doctor"."""
        self._client.send(m.ApplyFix, self._fails_as("doctor"), code=code)

    def record(self, path: str) -> None:
        """Record to `path`, or end the recording when it is empty."""
        if path:
            self._client.send(m.StartRecording, self._fails_as("recording"), path=path)
        else:
            self._client.send(m.StopRecording, self._fails_as("recording"))

    def snapshot(self, path: str) -> None:
        """Keep the picture of this moment."""

        def on_reply(error) -> None:
            self.failed.emit("snapshot", error) if error else self.saved.emit("Snapshot", path)

        self._client.send(m.TakeSnapshot, on_reply, path=path)

    def list_devices(self) -> None:
        """`DevicesListed` follows."""
        self._client.send(m.ListDevices, self._fails_as("devices"))

    def analyse(self, portrait: str) -> None:
        """`PortraitAnalysed` follows, or `failed` of "analysis"."""
        self._client.send(m.AnalysePortrait, self._fails_as("analysis"), portrait=portrait)

    def store_handles(self, portrait: str, handles: dict[str, tuple[float, float]]) -> None:
        """Keep marks set by hand and show them."""

        def on_reply(error) -> None:
            if error:
                self.failed.emit("handles", error)
            elif self.is_running and portrait == self.settings.portrait:
                self._client.send(m.SetPortrait, self._fails_as("portrait"), portrait=portrait)

        self._client.send(m.StoreHandles, on_reply, portrait=portrait, handles=handles)

    def _follow(self, part: str, before: object, after: object, command: type[m.Command], field: str) -> None:
        if before != after:
            self._client.send(command, self._fails_as(part), **{field: after})

    def _follow_voice_out(
        self, before: VoiceOutSettings | None, after: VoiceOutSettings | None, *, is_chosen: bool
    ) -> None:
        is_chosen_again = is_chosen and after is not None and self._is_voice_out_away
        if before != after or is_chosen_again:
            self._send_voice_out(after)

    def _fails_as(self, part: str) -> Callable[[object], None]:
        return lambda error: self.failed.emit(part, error) if error else None

    def _want_camera(self, is_on: bool) -> None:
        if self.is_camera_wanted != is_on:
            self.is_camera_wanted = is_on
            self.camera_wanted_changed.emit(is_on)

    # ------------------------------------------------------------------------------------------ what happens

    def _on_ready(self, _hello) -> None:
        # The picture first: looking for devices takes the sound system a second.
        self.is_ready = True
        self.begin()
        self.list_devices()

    def _on_lost(self, _reason, _pause_ms) -> None:
        self.is_ready = False
        self._again.stop()
        self._enter(_Phase.NONE)

    def _on_state(self, event: m.StateChanged) -> None:
        self._is_ending = event.state is m.SessionState.STOPPING
        # While starting or stopping, the reply to the command tells the rest.
        if event.state is m.SessionState.IDLE and self._phase is _Phase.LIVE:
            self._on_over(self._fault or event.reason)

    def _on_notice(self, event: m.Noticed) -> None:
        if event.reason.code == FAULT:
            self._fault = event.reason
        elif event.reason.code in (VOICE_OUT_LOST, VOICE_OUT_BACK):
            self._is_voice_out_away = event.reason.code == VOICE_OUT_LOST
        elif event.reason.code == VOICE_OUT_TOO_SLOW:
            self._is_voice_late = True
            self._make_up_for_late_voice()

    def _on_recording(self, event: m.RecordingChanged) -> None:
        self._is_recording = event.is_recording
        if self.is_live and not self._is_ending:
            self._make_up_for_late_voice()

    def _on_over(self, reason: m.Reason) -> None:
        will_begin_again = not self._has_begun_again
        self._has_begun_again = True
        self._trusted.stop()
        self._enter(_Phase.NONE)
        if not will_begin_again or reason.code == ENDED:
            self._want_camera(False)
        if will_begin_again:
            self._again.start()
        self.session_over.emit(reason, will_begin_again)

    def _on_trusted(self) -> None:
        self._has_begun_again = False

    def _on_camera(self, event: m.CameraChanged) -> None:
        # The end of the session closes it as well: whether it is wanted then is decided there. So does another one
        # that is being opened: the reply tells whether it was.
        if not event.is_open and self.is_live and not self._is_ending and not self._cameras_asked:
            self._want_camera(False)

    def _make_up_for_late_voice(self) -> None:
        """Another session has the delay for it; while somebody watches or it is recorded, that waits."""
        wanted = voice_out_of(self.settings)
        is_free = self.is_live and not self.is_camera_wanted and not self._is_recording
        if self._is_voice_late and is_free and wanted != self._voice_begun_again:
            self._voice_begun_again = wanted
            self._restart()

    def _restart(self) -> None:
        self._stop(self._come_back)

    def _stop(self, after: Callable[[], None]) -> None:
        """End the session, and then what was wished last; an engine that is lost meanwhile has ended it, too."""
        self._after_stop = after
        if self._phase is not _Phase.STOPPING:
            self._enter(_Phase.STOPPING)
            self._client.send(m.Stop, self._on_stopped)

    def _on_stopped(self, _error) -> None:
        after, self._after_stop = self._after_stop, None
        if after is not None:
            after()

    def _go_away(self, then: Callable[[], None]) -> None:
        self._enter(_Phase.AWAY)
        then()

    def _come_back(self) -> None:
        self._enter(_Phase.NONE)
        self.begin()

    def _begin(self) -> None:
        self._is_ending, self._fault = False, None
        self._is_voice_out_away = self._is_voice_late = self._is_recording = False
        is_muted = self.is_muted
        self._enter(_Phase.STARTING)
        wanted = self.settings if self.model_missing is None else replace(self.settings, **_SIMPLE)
        settings = session_of(wanted, is_muted=is_muted)
        self._client.send(m.Start, lambda error: self._on_started(error, is_muted), settings=settings)

    def _on_started(self, error: m.Reason | None, was_muted: bool) -> None:
        if self._phase is not _Phase.STARTING:
            return  # stopped or lost meanwhile
        if error is None:
            self._enter(_Phase.LIVE)
            self._trusted.start()
            if self.is_muted != was_muted:
                self.set_muted(self.is_muted)
            self._add_devices()
            return
        self._enter(_Phase.NONE)
        if error.code == "engine.lost":
            return  # `lost` tells it
        if error.code in _MODEL_IS_MISSING and self.model_missing is None:
            self._set_model_missing(error)
            self.begin()
            return
        is_picture_bad = error.code.startswith("portrait.") and self.settings.portrait != FIRST_SAMPLE
        if not is_picture_bad:
            self._want_camera(False)
        self.failed.emit("start", error)
        if is_picture_bad:
            # A remembered picture may be gone since; a window without a picture helps nobody.
            self.change(portrait=FIRST_SAMPLE)

    def _add_devices(self) -> None:
        """A slow, missing or refusing device must not hold up the first picture, so each comes after it."""
        now = self.settings
        voice_out = voice_out_of(now)
        if self.is_camera_wanted:
            self._send_camera(camera_of(now))
        if now.has_microphone:
            self.microphone.ask()
        if voice_out is not None:
            self._send_voice_out(voice_out)

    def _send_voice_out(self, voice_out: VoiceOutSettings | None) -> None:
        self._client.send(m.SetVoiceOut, self._voice_out_replied, voice_out=voice_out)

    def _voice_out_replied(self, error: m.Reason | None) -> None:
        self._is_voice_out_away = error is not None
        if error:
            self.failed.emit("voice_out", error)

    def _send_camera(self, camera: CameraSettings | None) -> None:
        self._cameras_asked += 1
        self._client.send(m.SetCamera, self._camera_replied, camera=camera)

    def _camera_replied(self, error: m.Reason | None) -> None:
        self._cameras_asked -= 1
        if error and error.code != "engine.lost":
            self._want_camera(False)
            self.failed.emit("camera", error)

    def _set_model_missing(self, reason: m.Reason | None) -> None:
        if self.model_missing != reason:
            self.model_missing = reason
            self.model_missing_changed.emit()

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self.availability_changed.emit()

    def _timer(self, interval_ms: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setInterval(interval_ms)
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        return timer


def _of_whole_session(settings: AppSettings) -> tuple[object, ...]:
    """What cannot change while it runs."""
    return (
        settings.canvas, settings.fps, settings.has_noise_suppression, settings.is_adaptive, settings.generator,
        settings.generator_options,
    )  # fmt: skip
