"""One live run: builds the graph of source, generator, pacer and sinks, and owns its threads from start to stop."""

# pyright: reportPrivateUsage=false
# `_SessionStage` below is a part of the session.

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from engine.audio.suppression import check_suppression
from engine.clock import Clock, SystemClock
from engine.errors import Cancelled, MicrophoneError, StandinError, UsageError
from engine.generators.base import Progress
from engine.media import CanvasFormat, Notice
from engine.protocol.codec import reason_of
from engine.protocol.messages import (
    CameraChanged,
    Event,
    Noticed,
    PreviewOpened,
    Progressed,
    Reason,
    RecordingChanged,
    SessionState,
    StateChanged,
    Stats,
    VoiceOutChanged,
)
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    GateSettings,
    MicrophoneSource,
    SessionSettings,
    SilentSource,
    SoundSettings,
    Source,
    VoiceOutSettings,
)
from engine.sinks.base import PresentedFrame, VideoSink
from engine.sinks.mailbox import Mailbox
from engine.sinks.recorder import Recorder
from engine.sinks.snapshot import write_snapshot
from engine.stream.director import Director, Stage
from engine.stream.graph import Graph
from engine.stream.microphone_watch import MicrophoneWatch
from engine.stream.runner import GeneratorRunner
from engine.stream.sources import open_source

if TYPE_CHECKING:
    from engine.audio.hotplug import Waiter
    from engine.audio.sources import AudioSource
    from engine.audio.voice_out import AnyVoiceOut
    from engine.sinks.virtual_camera import VirtualCamera

logger = logging.getLogger(__name__)

_STATS_EVERY_S = 0.25
_AUDIO_EVERY_S = 0.010
_OPEN_TIMEOUT_S = 10.0
_RECORDER_SLOTS = 25
_THREAD_TIMEOUT_S = 5.0
_LOADER_TIMEOUT_S = 2.0
"""What is being loaded is cancelled at its next progress; a library that hangs is left alone."""

Emit = Callable[[Event], None]


class Broadcast:
    """A session from `start` to `stop`. All public methods are called from one thread (the one that executes
    commands), except `set_muted`, `set_talking`, `cancel` and `has_ended`, which any thread may call; they raise
    `StandinError`s, and what was running before goes on. Events are emitted from several threads, one at a time.
    """

    def __init__(self, settings: SessionSettings, emit: Emit, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._emit_now = emit
        self._emit_lock = threading.Lock()
        self._state_lock = threading.RLock()
        self._clock = clock or SystemClock()
        self._state = SessionState.IDLE
        self._graph: Graph | None = None
        self._boxes: dict[str, Mailbox] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._audio_lock = threading.Lock()
        self._devices_lock = threading.RLock()
        """Held while sound devices are opened, closed or exchanged; before `_audio_lock`, which is held for moments."""
        self._has_stopped_microphone = False
        self._microphone = MicrophoneWatch(_SessionMicrophone(self), self._clock)
        self._voice: AnyVoiceOut | None = None
        self._camera_names: tuple[str, ...] = ()
        self._stage = _SessionStage(self)
        self._director = Director(settings, self._stage, self._progress(), self._stopping)
        self._wanted_snapshot: threading.Event | None = None
        self._snapshot: np.ndarray | None = None

    # ------------------------------------------------------------------------------------------ whole session

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._state

    @property
    def camera_devices(self) -> frozenset[str]:
        """Devices that this session feeds."""
        return frozenset(name for name in self._camera_names if name) if "camera" in self._boxes else frozenset()

    @property
    def has_ended(self) -> threading.Event:
        """Set once a file has been spoken to its end and shown."""
        return self._ended

    def start(self) -> None:
        """Prepare everything, then go live. Raises the first error after giving everything back."""
        settings = self._settings
        self._enter(SessionState.PREPARING, "session.preparing", "Preparing the portrait.")
        try:
            # What is missing is said before minutes of preparing.
            settings = self._settings = self._without_what_is_missing(settings)
            source = open_source(settings.source)
            camera = _find_camera(settings.camera) if settings.camera is not None else None
            voice = _find_voice_out(settings.voice_out) if settings.voice_out is not None else None
            recorder = None
            if settings.recording:
                recorder = Recorder(settings.recording, may_replace=settings.may_replace_recording)
            scene = self._director.open()
            self._graph = Graph(
                scene,
                settings,
                self._clock,
                present=self._present,
                on_failure=self._director.on_failure,
                on_notice=lambda notice: self._stage.on_notices([notice]),
                standby=self._director.standby,
                coming=self._director.coming,
            )
            self._graph.listener.is_muted = settings.is_muted
            self._graph.listener.talk_key.is_needed = settings.sound.is_push_to_talk
            if settings.has_preview:
                self._open_preview()
            if recorder is not None:
                self._open_recorder(recorder)
            if camera is not None:
                self._open_camera(camera)
            if voice is not None:
                self._play_on(voice)
            source.start(self._clock)
            self._graph.go_live(source, self._gate_for(settings.source))
            self._microphone.begin(settings.source)
        except BaseException as error:
            self._give_back()
            reason = reason_of(error) if isinstance(error, StandinError) else Reason(code="error", message=str(error))
            self._enter_with(SessionState.IDLE, reason)
            raise
        self._director.begin(self._graph.runner)
        for name, loop in (("audio", self._hear), ("generator", self._generate), ("pacer", self._pace)):
            self._start_thread(name, loop)
        self._start_thread("stats", self._watch)

    def _without_what_is_missing(self, settings: SessionSettings) -> SessionSettings:
        """Noise suppression is worth a notice, but not a session."""
        if not settings.sound.has_noise_suppression:
            return settings
        try:
            check_suppression()
        except UsageError as error:
            self._emit(Noticed(reason=reason_of(error), is_error=True))
            sound = msgspec.structs.replace(settings.sound, has_noise_suppression=False)
            return msgspec.structs.replace(settings, sound=sound)
        return settings

    def cancel(self) -> None:
        """Make a running `start` or change end with `Cancelled` soon."""
        self._cancelled.set()

    def stop(self, reason: Reason | None = None) -> None:
        """End the session: devices given back, files complete. Safe to call twice."""
        if self._state is SessionState.IDLE:
            return
        self._enter(SessionState.STOPPING, "session.stopping", "Stopping.")
        self._give_back()
        self._enter_with(SessionState.IDLE, reason or Reason(code="session.stopped", message="The session has ended."))

    def _give_back(self) -> None:
        """Stages in order: no more work, no more sound, sinks complete, memory freed. The sinks do not wait for the
        generator, whose chunk or load may take longer than anybody who ends a session will wait."""
        self._cancelled.set()
        self._stopping.set()
        if self._graph is not None:
            self._graph.runner.end()
            self._graph.timeline.wake()
        making = [thread for thread in self._threads if thread.name == "generator"]
        for thread in self._threads:
            if thread not in making and thread is not threading.current_thread():
                thread.join(_THREAD_TIMEOUT_S)
        self._threads.clear()
        with self._devices_lock:
            self._microphone.end()
        if self._voice is not None:
            self._voice.stop()
            self._voice = None
        if self._graph is not None and self._graph.listener.source is not None:
            self._graph.listener.source.stop()
        for name in list(self._boxes):
            self._close_box(name)
        self._director.join(_LOADER_TIMEOUT_S)
        if self._graph is not None:
            _close_runner(self._graph.runner, making)
            self._graph = None

    # ------------------------------------------------------------------------------------------- live changes

    def set_portrait(self, portrait: str) -> None:
        """Prepare another portrait beside the running one and let it take over between two frames."""
        self._running()
        self._director.change(portrait=portrait)
        self._settings = msgspec.structs.replace(self._settings, portrait=portrait)

    def set_canvas(self, canvas: CanvasSettings) -> None:
        """Change fill, colour or mirroring. Raises `UsageError` for another size, which ends the session instead."""
        now = self._settings.canvas
        if (canvas.width, canvas.height) != (now.width, now.height):
            raise UsageError(
                "The size of the picture cannot change while it is live.", hint="Stop, change it, and start again."
            )
        self._running()
        self._director.change(canvas=canvas)
        self._settings = msgspec.structs.replace(self._settings, canvas=canvas)

    def set_source(self, source: Source) -> None:
        """Listen to another microphone or file; the present one goes on if that cannot be opened."""
        self._running()
        with self._devices_lock:
            before = self._settings.source
            try:
                fresh = self._opened(source)
                fresh.start(self._clock)
            except BaseException:
                if self._has_stopped_microphone and isinstance(before, MicrophoneSource):
                    self._microphone.wait(before)
                raise
            finally:
                self._has_stopped_microphone = False
            self._settings = msgspec.structs.replace(self._settings, source=source)
            self._microphone.begin(source)
            self._listen_to(fresh, source)

    def _listen_to(self, fresh: AudioSource, settings: Source) -> None:
        listener = self._running().listener
        with self._audio_lock:
            old = listener.source
            listener.take_from(fresh, self._gate_for(settings))
        if old is not None:
            old.stop()

    def _opened(self, source: Source) -> AudioSource:
        """Not yet started. A microphone that came after PortAudio had looked is found, too: then the devices in use
        are closed for a moment."""
        from engine.audio.devices import has_open_streams
        from engine.audio.hotplug import devices_elsewhere, is_there

        try:
            return open_source(source)
        except MicrophoneError as error:
            assert isinstance(source, MicrophoneSource)
            if error.code != "microphone.missing" or not has_open_streams():
                raise
            if not is_there(source, devices_elsewhere()):
                raise
        self._renew_devices()
        return open_source(source)

    def _renew_devices(self) -> None:
        """Let PortAudio look again. Its streams end and begin again around it: sound is missing for a moment, the
        picture goes on. A microphone in use is closed: the caller opens one, or lets it be waited for."""
        from engine.audio.devices import refresh

        with self._devices_lock:
            listener = self._running().listener
            if isinstance(self._settings.source, MicrophoneSource) and listener.source is not None:
                listener.source.stop()
                self._has_stopped_microphone = not self._microphone.is_waiting
            voice = self._voice
            if voice is not None and voice.uses_portaudio:
                with self._audio_lock:
                    self._voice = listener.voice = None
                voice.stop()
            else:
                voice = None
            refresh()
            if voice is not None:
                try:
                    self._play_on(_find_voice_out(self._settings.voice_out or VoiceOutSettings(name=voice.label)))
                except StandinError as error:
                    self._emit(Noticed(reason=reason_of(error), is_error=True))

    def set_muted(self, is_muted: bool) -> None:
        """Mute at once, at both ends: what is still in the pipe is neither shown nor heard."""
        graph = self._running()
        with self._audio_lock:
            was_muted, graph.listener.is_muted = graph.listener.is_muted, is_muted
            if is_muted and not was_muted:  # again and again, no chunk would ever be finished
                graph.silence_unpresented()
                if self._voice is not None:
                    self._voice.line.clear()
                if graph.listener.recorder is not None:
                    graph.listener.recorder.silence()

    def set_talking(self, is_talking: bool) -> None:
        """The push-to-talk key went down or up."""
        graph = self._running()
        with self._audio_lock:
            key = graph.listener.talk_key
            (key.press if is_talking else key.release)(self._clock.now())

    def set_sound(self, sound: SoundSettings) -> None:
        """Another gate, push-to-talk on or off. Raises `UsageError` for noise suppression, which has a delay of its
        own that the session was not made for."""
        graph = self._running()
        if sound.has_noise_suppression != self._settings.sound.has_noise_suppression:
            raise UsageError("Noise suppression cannot change while live.", hint="Stop, change it, and start again.")
        self._settings = msgspec.structs.replace(self._settings, sound=sound)
        with self._audio_lock:
            graph.listener.set_gate(self._gate_for(self._settings.source))
            graph.listener.talk_key.is_needed = sound.is_push_to_talk
            graph.listener.talk_key.forget()

    def _gate_for(self, source: Source) -> GateSettings | None:
        """Rooms are noisy; a file is as somebody wanted it."""
        return self._settings.sound.gate if isinstance(source, MicrophoneSource) else None

    def set_camera(self, camera: CameraSettings | None) -> None:
        """Open the virtual camera, another one, or close it; the picture goes on, and so does the camera in use where
        there is no such other one."""
        self._running()
        if camera is None or camera.device in self._camera_names:
            self._close_box("camera")  # the same one again would find itself busy
        if camera is not None:
            sink = _find_camera(camera)
            self._close_box("camera")
            self._open_camera(sink)

    def set_voice_out(self, settings: VoiceOutSettings | None) -> None:
        """Play the delayed voice on an output, another one, or nowhere."""
        self._running()
        if settings is not None and self._shifts_voice(settings):
            return
        with self._devices_lock:
            self._play_on(_find_voice_out(settings) if settings is not None else None)
            self._settings = msgspec.structs.replace(self._settings, voice_out=settings)

    def _shifts_voice(self, settings: VoiceOutSettings) -> bool:
        """Only the offset is another one: the output goes on, and moves the voice without a click."""
        voice, before = self._voice, self._settings.voice_out
        if voice is None or before is None or (before.name, before.host_api) != (settings.name, settings.host_api):
            return False
        voice.line.offset_s = _correction_s(settings)
        self._settings = msgspec.structs.replace(self._settings, voice_out=settings)
        return True

    def _play_on(self, voice: AnyVoiceOut | None) -> None:
        if voice is not None:
            voice.start()
        with self._audio_lock:
            old, self._voice = self._voice, voice
            self._running().listener.voice = voice.line.write if voice is not None else None
        if old is not None:
            old.stop()
        if voice is not None:
            self._emit(VoiceOutChanged(is_open=True, label=voice.label, microphone=voice.microphone))
        elif old is not None:
            self._emit(VoiceOutChanged(is_open=False))

    def start_recording(self, path: str, *, may_replace: bool = False) -> None:
        """Record picture and sound from now on."""
        self._running()
        if "recorder" in self._boxes:
            raise UsageError("A recording is under way already.", hint="Stop it first.")
        self._open_recorder(Recorder(path, may_replace=may_replace))

    def stop_recording(self) -> None:
        """Complete the recording."""
        if "recorder" not in self._boxes:
            raise UsageError("Nothing is being recorded.")
        self._close_box("recorder")

    def take_snapshot(self, path: str) -> Path:
        """Write the picture that is shown next as PNG."""
        self._running()
        wanted = threading.Event()
        self._wanted_snapshot = wanted
        if not wanted.wait(2.0) or self._snapshot is None:
            raise UsageError("There is no picture to keep yet.", hint="Try again in a moment.")
        image, self._snapshot = self._snapshot, None
        return write_snapshot(image, path)

    def _presented(self) -> int:
        graph = self._graph
        return graph.pacer.presented if graph is not None else 0

    def _running(self) -> Graph:
        if self._graph is None:
            raise UsageError("No session is running.", hint="Start one first.")
        return self._graph

    # -------------------------------------------------------------------------------------------------- sinks

    def _open_preview(self) -> None:
        from engine.sinks.preview import PreviewSink

        sink = PreviewSink()
        self._open_box("preview", sink)
        canvas = self._settings.canvas
        self._emit(PreviewOpened(memory_name=sink.memory_name, width=canvas.width, height=canvas.height))

    def _open_camera(self, sink: VirtualCamera) -> None:
        self._open_box("camera", sink)
        self._camera_names = ("", sink.device, sink.label)
        self._emit(CameraChanged(is_open=True, label=sink.label, device=sink.device, backend=sink.backend))

    def _open_recorder(self, recorder: Recorder) -> None:
        self._open_box("recorder", recorder, slots=_RECORDER_SLOTS)
        with self._audio_lock:
            self._running().listener.recorder = recorder
        self._emit(RecordingChanged(is_recording=True, path=str(recorder.path)))

    def _open_box(self, name: str, sink: VideoSink, slots: int = 1) -> None:
        canvas = self._settings.canvas
        form = CanvasFormat(width=canvas.width, height=canvas.height, fps=self._settings.fps)
        box = Mailbox(sink, form, slots=slots, on_error=lambda error: self._on_sink_error(name, error))
        try:
            box.wait_opened(_OPEN_TIMEOUT_S)
        except StandinError:
            box.close()
            raise
        self._boxes = {**self._boxes, name: box}

    def _close_box(self, name: str) -> None:
        box = self._boxes.get(name)
        if box is None:
            return
        self._boxes = {key: value for key, value in self._boxes.items() if key != name}
        if name == "recorder" and self._graph is not None:
            with self._audio_lock:
                self._graph.listener.recorder = None
        box.close()
        reason = reason_of(box.error) if box.error is not None else None
        if name == "camera":
            self._emit(CameraChanged(is_open=False))
        elif isinstance(box.sink, Recorder):
            self._emit(RecordingChanged(is_recording=False, path=str(box.sink.path), reason=reason))

    def _on_sink_error(self, name: str, error: StandinError) -> None:
        """From the sink's own thread: tell, and let the stats thread take it away."""
        if name in self._boxes:
            self._emit(Noticed(reason=reason_of(error), is_error=True))

    # ------------------------------------------------------------------------------------------------ threads

    def _start_thread(self, name: str, loop: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded, args=(name, loop), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # the edge of a thread: a session without one of them is over
            logger.exception("the %s thread failed", name)
            message = f"The session ended because of an internal error in its {name} part: {error}."
            self._emit(Noticed(reason=Reason(code="session.internal", message=message), is_error=True))
            self._ended.set()

    def _hear(self) -> None:
        graph = self._running()
        deadline_s = self._clock.now()
        while not self._stopping.is_set():
            with self._audio_lock:
                graph.listener.step()
                if self._voice is not None:
                    graph.steer(self._voice.line)
            deadline_s = max(deadline_s + _AUDIO_EVERY_S, self._clock.now())
            self._clock.wait_until(deadline_s, self._stopping)

    def _generate(self) -> None:
        runner = self._running().runner
        try:
            while not self._stopping.is_set():
                if not runner.step():
                    runner.wait(0.1)
        finally:
            runner.end()

    def _pace(self) -> None:
        pacer = self._running().pacer
        deadline_s = self._clock.now()
        while not self._clock.wait_until(deadline_s, self._stopping):
            deadline_s = pacer.tick(self._clock.now())

    def _watch(self) -> None:
        deadline_s = self._clock.now() + _STATS_EVERY_S
        while not self._clock.wait_until(deadline_s, self._stopping):
            deadline_s = self._clock.now() + _STATS_EVERY_S
            graph = self._running()
            self._emit(self.stats())
            self._drop_failed_boxes()
            self._follow_source(graph)
            self._follow_voice(graph)
            is_late = graph.pacer.held_in_a_row > self._settings.fps // 2 and not graph.queue.is_emptied
            if is_late and self._state is SessionState.LIVE:
                reason = Reason(
                    code="session.holding",
                    message="The generator is late, so the last picture is held.",
                    hint="Choose a smaller size or another generator.",
                )
                self._move(SessionState.HOLDING, reason, only_from=SessionState.LIVE)
            elif not is_late and self._state is SessionState.HOLDING:
                reason = Reason(code="session.live", message="The picture moves again.")
                self._move(SessionState.LIVE, reason, only_from=SessionState.HOLDING)

    def stats(self) -> Stats:
        """The counters now."""
        graph = self._running()
        voice = self._voice.line if self._voice is not None else None
        sinks = {name: box.stats() for name, box in self._boxes.items()}
        return msgspec.structs.replace(graph.stats(voice), sinks=sinks)

    def _drop_failed_boxes(self) -> None:
        for name, box in list(self._boxes.items()):
            if box.error is not None:
                self._close_box(name)

    def _follow_source(self, graph: Graph) -> None:
        source = graph.listener.source
        if isinstance(self._settings.source, MicrophoneSource):
            if self._devices_lock.acquire(
                blocking=False
            ):  # opening a device takes seconds; counters are told all along
                try:
                    self._microphone.look(graph.listener)
                finally:
                    self._devices_lock.release()
        elif source is not None and source.has_ended and graph.is_shown(graph.listener.heard_until):
            self._ended.set()

    def _follow_voice(self, graph: Graph) -> None:
        """An output that is gone plays nothing any more; the picture goes on without it."""
        with self._audio_lock:
            voice = self._voice
            if voice is None or not voice.has_failed:
                return
            self._voice = graph.listener.voice = None
        voice.stop()
        message = f'The sound output "{voice.label}" is gone, so your voice is not played.'
        hint = "Connect it again and choose it, or choose another one."
        self._emit(Noticed(reason=Reason(code="voice_out.lost", message=message, hint=hint), is_error=True))
        self._emit(VoiceOutChanged(is_open=False))

    def _present(self, frame: PresentedFrame) -> None:
        for box in self._boxes.values():
            box.put(frame)
        wanted = self._wanted_snapshot
        if wanted is not None:
            self._wanted_snapshot = None
            self._snapshot = np.array(frame.image)
            wanted.set()

    # ----------------------------------------------------------------------------------------------- telling

    def _progress(self) -> Progress:
        return _EmittedProgress(self._emit, self._cancelled)

    def _enter(self, state: SessionState, code: str, message: str, hint: str = "") -> None:
        self._enter_with(state, Reason(code=code, message=message, hint=hint))

    def _enter_with(self, state: SessionState, reason: Reason) -> None:
        with self._state_lock:
            self._state = state
            logger.info("session %s: %s", state.value, reason.message)
            self._emit(StateChanged(state=state, reason=reason))

    def _move(self, state: SessionState, reason: Reason, *, only_from: SessionState | None = None) -> None:
        """Enter a state of the running session; not once it is being stopped, nor from any but `only_from`."""
        with self._state_lock:
            if self._state in (SessionState.STOPPING, SessionState.IDLE) or only_from not in (None, self._state):
                return
            self._enter_with(state, reason)

    def _emit(self, event: Event) -> None:
        with self._emit_lock:
            self._emit_now(event)


def _close_runner(runner: GeneratorRunner, making: list[threading.Thread]) -> None:
    """Close the generators, when the chunk that one of them is `making` has ended."""
    for thread in making:
        thread.join(_THREAD_TIMEOUT_S)
    if not any(thread.is_alive() for thread in making):
        runner.close()
        return

    def close_later() -> None:
        for thread in making:
            thread.join()
        runner.close()

    logger.warning("the generator has not ended its chunk yet; it is closed when it has")
    threading.Thread(target=close_later, name="closer", daemon=True).start()


def _find_camera(settings: CameraSettings) -> VirtualCamera:
    from engine.sinks.virtual_camera import open_camera

    return open_camera(settings)


def _find_voice_out(settings: VoiceOutSettings) -> AnyVoiceOut:
    from engine.audio.voice_out import open_voice_out

    return open_voice_out(settings)


def _correction_s(settings: VoiceOutSettings) -> float:
    from engine.audio.voice_out import correction_s

    return correction_s(settings)


class _SessionStage(Stage):
    """What the director says becomes events and states of the session."""

    def __init__(self, session: Broadcast) -> None:
        self._session = session

    def on_notices(self, notices: list[Notice]) -> None:
        for notice in notices:
            reason = Reason(code=notice.code, message=notice.message, hint=notice.hint)
            self._session._emit(Noticed(reason=reason))

    def on_error(self, error: StandinError) -> None:
        self._session._emit(Noticed(reason=reason_of(error), is_error=True))

    def on_standby(self, code: str, message: str, hint: str) -> None:
        self._session._move(SessionState.FALLBACK, Reason(code=code, message=message, hint=hint))

    def on_ready(self) -> None:
        self._session._move(SessionState.LIVE, Reason(code="session.live", message="The picture is live."))

    def presented(self) -> int:
        return self._session._presented()


class _SessionMicrophone:
    """What the session does for its `MicrophoneWatch`."""

    def __init__(self, session: Broadcast) -> None:
        self._session = session

    def tell(self, reason: Reason, *, is_error: bool) -> None:
        self._session._emit(Noticed(reason=reason, is_error=is_error))

    def rest(self) -> None:
        silence = open_source(SilentSource())
        silence.start(self._session._clock)
        self._session._listen_to(silence, SilentSource())

    def open_again(self, wanted: MicrophoneSource) -> AudioSource:
        return open_source(wanted)

    def renew(self) -> None:
        self._session._renew_devices()

    def take_back(self, source: AudioSource, waiter: Waiter) -> bool:
        session = self._session
        with session._devices_lock:
            if waiter.is_cancelled or session._graph is None:
                return False
            session._listen_to(source, waiter.wanted)
            session._microphone.taken_back()
            return True

    def follow_default(self, wanted: MicrophoneSource) -> None:
        session = self._session
        with session._devices_lock:
            if session._settings.source is wanted and session._graph is not None:
                session._renew_devices()
                session.set_source(wanted)


class _EmittedProgress:
    """Progress as events, ended by `cancel`."""

    def __init__(self, emit: Emit, cancelled: threading.Event) -> None:
        self._emit = emit
        self._cancelled = cancelled

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        if self._cancelled.is_set():
            raise Cancelled("Stopped before it was ready.")
        self._emit(Progressed(stage=stage, done=done, total=total, unit=unit))
