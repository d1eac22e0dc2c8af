"""What happens in the engine, as words, colours and pictures in the window."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject
from PySide6.QtGui import QImage

from app.controllers.broadcast import ENDED, VOICE_OUT_TOO_SLOW, BroadcastController
from app.controllers.microphone import ABSENT, LOST
from app.engine_client.client import EngineClient
from app.engine_client.preview_reader import PreviewReader
from app.windows.main_window import MainWindow
from app.windows.quality import pace_words, show_quality
from engine.protocol import messages as m

_STATES = {
    m.SessionState.IDLE: "Stopped", m.SessionState.PREPARING: "Preparing the portrait...",
    m.SessionState.LIVE: "Preview: nobody sees it yet", m.SessionState.HOLDING: "Catching up...",
    m.SessionState.FALLBACK: "Using the simple picture", m.SessionState.STOPPING: "Stopping...",
}  # fmt: skip
_IDLE_TEXT = "No picture yet."
_SILENT = "window.silent"
_ALL_ZERO, _NOTHING_DBFS = "microphone.all_zero", -119.0
_UNSENT = "Choose where your voice goes if the call should hear it in step with the picture."
_KINDS = {"microphone.back": "info", "voice_out.back": "info", "doctor.fixed": "info"}
_SHOWN_BESIDE = ("quality.lowered", "quality.raised")
"""What a note in the window shows for as long as it is the case."""
_REMEDIES = {
    "microphone.none": "Connect one and press F5.", "microphone.missing": "Connect it and press F5, or choose another.",
}  # fmt: skip


class SessionPresenter(QObject):
    """Shows the session; decides nothing. Lives as long as the window, on the GUI thread."""

    def __init__(
        self, window: MainWindow, client: EngineClient, broadcast: BroadcastController, reader: PreviewReader
    ) -> None:
        super().__init__(window)
        self._window, self._broadcast, self._reader = window, broadcast, reader
        self._state_text = "Starting..."
        self._camera_label = self._virtual_microphone = ""
        self._idle_text = _IDLE_TEXT
        self._recording = self._kept = ""
        self._was_recording = False
        client.state_changed.connect(self._on_state)
        client.noticed.connect(self._on_notice)
        client.preview_opened.connect(lambda e: reader.open(e.memory_name))
        client.camera_changed.connect(self._on_camera)
        client.voice_out_changed.connect(self._on_voice_out)
        client.recording_changed.connect(self._on_recording)
        client.stats_received.connect(self._on_stats)
        client.lost.connect(self._on_lost)
        client.ready.connect(self._on_ready)
        broadcast.session_over.connect(self._on_over)
        broadcast.failed.connect(self._on_failed)
        broadcast.microphone.problem_changed.connect(self._on_microphone)
        broadcast.availability_changed.connect(self._show_available)
        broadcast.camera_wanted_changed.connect(self._on_camera_wanted)
        broadcast.saved.connect(lambda what, path: window.banner.tell("info", f"{what} kept.", path))
        reader.frame_ready.connect(self._on_frame)
        self._show_available()

    def tell(self, kind: str, reason: m.Reason, action: str = "", on_action: Callable[[], None] | None = None) -> None:
        """A reason across the window; `kind` as `Banner.tell` takes it."""
        self._window.banner.tell(
            kind, reason.message, reason.hint, code=reason.code, action=action, on_action=on_action
        )

    def _show_available(self) -> None:
        now = self._broadcast
        self._window.set_available(
            is_ready=now.is_ready, is_live=now.is_live, is_camera_wanted=now.is_camera_wanted
        )  # fmt: skip

    def _show_state(self) -> None:
        text = self._state_text
        if self._camera_label:
            text = f"In your call, pick the camera \u201c{self._camera_label}\u201d"
        self._window.state_label.setText(text)

    def _on_state(self, event: m.StateChanged) -> None:
        self._state_text = _STATES[event.state]
        if event.state is m.SessionState.STOPPING:
            self._was_recording = bool(self._recording)
        if event.state is m.SessionState.IDLE:
            self._no_picture(self._idle_text)
            self._idle_text = _IDLE_TEXT
        self._show_state()

    def _no_picture(self, text: str) -> None:
        self._reader.close()
        self._window.preview.set_waiting(text)
        self._window.stats_label.setText("")
        self._window.quality_note.clear()
        self._window.meter.set_level(-120.0, -120.0)

    def _on_notice(self, event: m.Noticed) -> None:
        if event.reason.code in _SHOWN_BESIDE:
            return
        if event.reason.code == VOICE_OUT_TOO_SLOW and not self._broadcast.is_live:
            return  # the session that has just been begun for it has the delay
        self.tell("error" if event.is_error else _KINDS.get(event.reason.code, "warn"), event.reason)
        if event.reason.code == "engine.version":
            self._state_text = "The engine cannot be used"
            self._no_picture(event.reason.message)
            self._show_state()

    def _on_frame(self, image: QImage) -> None:
        if self._window.preview.is_waiting:
            self._window.preview.set_waiting("")
        self._window.preview.set_image(image)

    def _on_camera_wanted(self, is_on: bool) -> None:
        self._window.set_camera_wanted(is_on)
        self._show_available()

    def _on_camera(self, event: m.CameraChanged) -> None:
        self._camera_label = event.label if event.is_open else ""
        self._window.set_on_air(event.is_open)
        self._show_state()

    def _on_recording(self, event: m.RecordingChanged) -> None:
        self._window.set_recording(event.is_recording)
        self._recording, self._kept = (event.path, "") if event.is_recording else ("", event.path)
        if event.reason:
            self.tell("error", event.reason)
        elif not event.is_recording:
            self._window.banner.tell("info", "Recording kept.", event.path)

    def _on_stats(self, event: m.Stats) -> None:
        w = self._window
        if not self._broadcast.is_live:
            return
        w.meter.set_level(event.level_dbfs, event.peak_dbfs)
        if event.level_dbfs > _NOTHING_DBFS:
            w.banner.dismiss_if(_ALL_ZERO)
        is_silent = not self._broadcast.settings.has_microphone or self._broadcast.microphone.problem is not None
        word = "Muted" if self._broadcast.is_muted else "Speaking" if event.is_speaking else "Quiet"
        w.speaking_label.setText("No microphone" if is_silent else word)
        offset = event.av_offset_ms
        sync = "" if offset is None else f"   lip sync {offset:+.0f} ms"
        w.stats_label.setText(
            f"{event.fps:.1f} fps   {event.delay_ms:.0f} ms behind you{sync}   {event.dropped} dropped"
            f"{pace_words(event.quality)}"
        )
        show_quality(w.quality_note, event.quality)
        w.voice_label.setText(self._voice_words(event.delay_ms))

    def _voice_words(self, delay_ms: float) -> str:
        if not self._broadcast.settings.has_voice_out:
            return _UNSENT
        pick = f"In your call, pick the microphone “{self._virtual_microphone}”. "
        return (pick if self._virtual_microphone else "") + f"{delay_ms:.0f} ms behind you, in step with the picture."

    def _on_voice_out(self, event: m.VoiceOutChanged) -> None:
        self._virtual_microphone = event.microphone if event.is_open else ""

    def _on_ready(self, _hello: m.Hello) -> None:
        self._window.banner.dismiss_if("engine.ended")
        if self._recording:
            # Fragments were written all along, so all but the last moment is there.
            self._window.banner.tell("warn", "The recording ended with the engine; it is kept.", self._recording)
            self._recording = ""

    def _on_lost(self, reason: m.Reason, _pause_ms: int) -> None:
        self._window.set_on_air(False)
        self._window.set_recording(False)
        self._camera_label = self._virtual_microphone = ""
        self._state_text = "Restarting the engine..."
        self._no_picture("The engine is being started again...")
        self._show_state()
        self.tell("error", reason)

    def _on_over(self, reason: m.Reason, will_begin_again: bool) -> None:
        # The controller hears of the end first; the text is for the change of state that comes next.
        kind = "info" if reason.code == ENDED else "error"
        kept = f" The recording is kept: {self._kept}" if self._was_recording else ""
        if will_begin_again:
            self._idle_text = "The picture is being started again..."
            hint = "The picture is being started again."
            self._window.banner.tell(kind, reason.message, hint + kept, code=reason.code)
        else:
            self._idle_text = "The picture has stopped."
            hint = (reason.hint + kept).strip()
            self._window.banner.tell(
                kind, reason.message, hint, code=reason.code, action="Start again", on_action=self._broadcast.begin
            )

    def _on_failed(self, part: str, reason: m.Reason) -> None:
        if part == "start":
            self.tell("error", reason, "Try again", self._broadcast.begin)
        else:
            self.tell("error", reason)
        if part == "recording":
            self._window.set_recording(False)

    def _on_microphone(self) -> None:
        """A computer without a microphone is no failure: the portrait rests until there is one. A word beside the
        picker says so, and only who goes on air like this is warned (`warn_of_silence`)."""
        problem = self._broadcast.microphone.problem
        is_absent = problem is not None and problem.code in ABSENT
        self._window.set_microphone_hint(
            f"{problem.message} {_REMEDIES[problem.code]}" if problem and is_absent else ""
        )
        if problem is None:
            self._window.banner.dismiss_if(_SILENT)
            self._window.banner.dismiss_if(LOST)
        elif is_absent and self._broadcast.is_camera_wanted:
            self.warn_of_silence()

    def warn_of_silence(self) -> None:
        """The picture goes on air, and nobody will be heard to make it speak."""
        problem = self._broadcast.microphone.problem
        if problem is not None:
            self._window.banner.tell(
                "warn", f"The portrait will not speak. {problem.message}",
                _REMEDIES.get(problem.code, problem.hint), code=_SILENT, action="Choose microphone",
                on_action=self._choose_microphone,
            )  # fmt: skip

    def _choose_microphone(self) -> None:
        self._window.microphone.setFocus()
        self._window.microphone.showPopup()
