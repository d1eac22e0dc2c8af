"""The session that the window shows: begun when the engine is ready, again when it was lost, changed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PySide6.QtCore import QObject, Signal

from app.engine_client.client import EngineClient
from app.settings.schema import AppSettings
from app.settings.store import SettingsStore
from engine import settings as s
from engine.protocol import messages as m

FIRST_SAMPLE = "sample:"


class BroadcastController(QObject):
    """Keeps the wishes (settings, camera on, muted) and brings the engine in line with them."""

    settings_changed = Signal(object)
    camera_wanted_changed = Signal(bool)
    failed = Signal(str, object)
    """(what was tried: "start", "portrait", "source", ..., Reason)"""
    saved = Signal(str, str)

    def __init__(self, client: EngineClient, store: SettingsStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._client, self._store = client, store
        self.is_camera_wanted = self.is_muted = self.is_running = False
        client.ready.connect(self._on_ready)
        client.lost.connect(self._on_lost)

    @property
    def settings(self) -> AppSettings:
        """What is kept between runs."""
        return self._store.settings

    def change(self, **changes: object) -> None:
        """Keep a wish and bring a running session in line with it."""
        before = self.settings
        self._store.save(replace(before, **changes))
        after = self.settings
        self.settings_changed.emit(after)
        if not self.is_running:
            return
        if (before.canvas, before.fps) != (after.canvas, after.fps):
            self._restart()
            return
        self._follow("portrait", before, after, m.SetPortrait, portrait=after.portrait)
        self._follow("source", before, after, m.SetSource, source=_source(after))
        self._follow("voice_out", before, after, m.SetVoiceOut, voice_out=_voice_out(after))
        self._follow("canvas", before, after, m.SetCanvas, canvas=_canvas(after))

    def set_camera(self, is_on: bool) -> None:
        """Put the picture on air, or take it off."""
        self.is_camera_wanted = is_on
        self.camera_wanted_changed.emit(is_on)
        if not self.is_running and is_on:
            self._begin()
        elif self.is_running:
            self._client.send(m.SetCamera, self._camera_replied, camera=_camera(self.settings) if is_on else None)

    def set_muted(self, is_muted: bool) -> None:
        """At once, sound in the pipe included."""
        self.is_muted = is_muted
        self._client.send(m.SetMuted, self._fails_as("mute"), is_muted=is_muted)

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
        """`PortraitAnalysed` follows."""
        self._client.send(m.AnalysePortrait, self._fails_as("analysis"), portrait=portrait)

    def store_handles(self, portrait: str, handles: dict[str, tuple[float, float]]) -> None:
        """Keep marks set by hand and show them."""

        def on_reply(error) -> None:
            if error:
                self.failed.emit("handles", error)
            elif self.is_running and portrait == self.settings.portrait:
                self._client.send(m.SetPortrait, self._fails_as("portrait"), portrait=portrait)

        self._client.send(m.StoreHandles, on_reply, portrait=portrait, handles=handles)

    def _follow(self, part: str, before: AppSettings, after: AppSettings, command, **fields) -> None:
        make = {"portrait": lambda v: v.portrait, "source": _source, "voice_out": _voice_out, "canvas": _canvas}[part]
        if make(before) != make(after):
            self._client.send(command, self._fails_as(part), **fields)

    def _fails_as(self, part: str) -> Callable[[object], None]:
        return lambda error: self.failed.emit(part, error) if error else None

    def session_ended(self, reason) -> None:
        """The session is over, for whatever reason."""
        was_running, self.is_running = self.is_running, False
        if was_running and self.is_camera_wanted:
            self._camera_replied(reason)

    def camera_lost(self) -> None:
        """The engine closed the camera though it was wanted."""
        self.is_camera_wanted = False
        self.camera_wanted_changed.emit(False)

    def _on_ready(self, _hello) -> None:
        # The picture first: looking for devices takes the sound system a second.
        self._begin()
        self.list_devices()

    def _on_lost(self, _reason, _pause_ms) -> None:
        self.is_running = False

    def _restart(self) -> None:
        self.is_running = False
        self._client.send(m.Stop, lambda _error: self._begin())

    def _begin(self) -> None:
        now = self.settings
        settings = s.SessionSettings(
            portrait=now.portrait, source=s.SilentSource(), canvas=_canvas(now), fps=now.fps,
            has_preview=True, is_muted=self.is_muted,
        )  # fmt: skip
        self.is_running = True
        self._client.send(m.Start, self._on_started, settings=settings)

    def _on_started(self, error) -> None:
        if error is None:
            self._add_devices()
            return
        self.is_running = False
        self.failed.emit("start", error)
        if error.code.startswith("portrait.") and self.settings.portrait != FIRST_SAMPLE:
            # A remembered picture may be gone since; a window without a picture helps nobody.
            self._store.save(replace(self.settings, portrait=FIRST_SAMPLE))
            self.settings_changed.emit(self.settings)
            self._begin()

    def _add_devices(self) -> None:
        """A slow, missing or refusing device must not hold up the first picture, so each comes after it."""
        now = self.settings
        source, voice_out = _source(now), _voice_out(now)
        if self.is_camera_wanted:
            self._client.send(m.SetCamera, self._camera_replied, camera=_camera(now))
        if not isinstance(source, s.SilentSource):
            self._client.send(m.SetSource, self._fails_as("source"), source=source)
        if voice_out is not None:
            self._client.send(m.SetVoiceOut, self._fails_as("voice_out"), voice_out=voice_out)

    def _camera_replied(self, error) -> None:
        if error:
            self.is_camera_wanted = False
            self.camera_wanted_changed.emit(False)
            self.failed.emit("camera", error)


def _source(v: AppSettings) -> s.Source:
    return s.MicrophoneSource(name=v.microphone, host_api=v.microphone_host) if v.has_microphone else s.SilentSource()


def _voice_out(v: AppSettings) -> s.VoiceOutSettings | None:
    return s.VoiceOutSettings(name=v.voice_out, host_api=v.voice_out_host) if v.has_voice_out else None


def _canvas(v: AppSettings) -> s.CanvasSettings:
    width, height = (int(n) for n in v.canvas.split("x"))
    return s.CanvasSettings(width=width, height=height, fill=v.fill, colour=v.colour, is_mirrored=v.is_output_mirrored)


def _camera(v: AppSettings) -> s.CameraSettings:
    return s.CameraSettings(device=v.camera_device, backend=v.camera_backend)
