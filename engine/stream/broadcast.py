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

from engine.audio.suppression import check_suppression
from engine.clock import Clock, SystemClock
from engine.errors import StandinError, UsageError
from engine.media import CanvasFormat, Notice
from engine.protocol.codec import reason_of
from engine.protocol.messages import Reason, SessionState, Stats
from engine.real_time import ask_for_real_time
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    SessionSettings,
    SoundSettings,
    Source,
    VoiceOutSettings,
)
from engine.sinks.recorder import Recorder
from engine.stream import output_memory
from engine.stream.adaptation import Adaptation
from engine.stream.director import Director
from engine.stream.graph import Graph
from engine.stream.outputs import Outputs, find_camera
from engine.stream.pace import Pace
from engine.stream.reporter import Emit, ReportedProgress, Reporter
from engine.stream.runner import GeneratorRunner
from engine.stream.session_sound import SessionSound
from engine.stream.session_voice import find_voice_out
from engine.stream.stage import Stage
from engine.stream.swap import Scene

if TYPE_CHECKING:
    from engine.audio.voice_out import AnyVoiceOut

logger = logging.getLogger(__name__)

_STATS_EVERY_S = 0.25
_AUDIO_EVERY_S = 0.010
_THREAD_TIMEOUT_S = 5.0
_LOADER_TIMEOUT_S = 2.0
"""What is being loaded is cancelled at its next progress; a library that hangs is left alone."""


class Broadcast:
    """A session from `start` to `stop`. All public methods are called from one thread (the one that executes
    commands), except `set_muted`, `set_talking`, `cancel` and `has_ended`, which any thread may call; they raise
    `StandinError`s, and what was running before goes on. Events are emitted from several threads, one at a time.
    """

    def __init__(self, settings: SessionSettings, emit: Emit, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._reporter = Reporter(emit)
        self._graph: Graph | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._sound = SessionSound(settings, self._clock, self._reporter)
        form = CanvasFormat(width=settings.canvas.width, height=settings.canvas.height, fps=settings.fps)
        self._outputs = Outputs(form, self._reporter, self._sound.let_record)
        self._adaptation: Adaptation | None = None
        self._stage = _SessionStage(self)
        progress = ReportedProgress(self._reporter, self._cancelled)
        self._director = Director(settings, self._stage, progress, self._stopping)

    # ------------------------------------------------------------------------------------------ whole session

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._reporter.state

    @property
    def camera_devices(self) -> frozenset[str]:
        """Devices that this session feeds."""
        return self._outputs.camera_devices

    @property
    def has_ended(self) -> threading.Event:
        """Set once a file has been spoken to its end and shown."""
        return self._ended

    def start(self) -> None:
        """Prepare everything, then go live. Raises the first error after giving everything back."""
        self._reporter.enter(
            SessionState.PREPARING, Reason(code="session.preparing", message="Preparing the portrait.")
        )
        try:
            graph = self._started()
        except BaseException as error:
            self._give_back()
            reason = reason_of(error) if isinstance(error, StandinError) else Reason(code="error", message=str(error))
            self._reporter.enter(SessionState.IDLE, reason)
            raise
        self._director.begin(graph.runner)
        for name, loop in (("audio", self._hear), ("generator", self._generate), ("pacer", self._pace)):
            self._start_thread(name, loop)
        self._start_thread("stats", self._watch)

    def _started(self) -> Graph:
        """Everything but the threads. What is missing is said before minutes of preparing."""
        settings = self._settings = self._without_what_is_missing(self._settings)
        source = self._sound.first_source()
        camera = find_camera(settings.camera) if settings.camera is not None else None
        voice = find_voice_out(settings.voice_out) if settings.voice_out is not None else None
        recorder = None
        if settings.recording:
            recorder = Recorder(settings.recording, may_replace=settings.may_replace_recording)
        graph = self._graph = self._graph_for(self._director.open(), _delay_for(settings, voice))
        self._adaptation = Adaptation(graph.runner, graph.pacer, self._director, self._reporter)
        self._sound.attach(graph, settings)
        if settings.has_preview:
            self._outputs.open_preview()
        if recorder is not None:
            self._outputs.open_recorder(recorder)
        if camera is not None:
            self._outputs.open_camera(camera)
        if voice is not None:
            self._sound.voice.play_on(voice)
        self._sound.go_live(source)
        return graph

    def _graph_for(self, scene: Scene, least_delay_s: float) -> Graph:
        return Graph(
            scene,
            self._settings,
            self._clock,
            present=self._outputs.present,
            on_failure=self._director.on_failure,
            on_notice=lambda notice: self._reporter.pass_on([notice]),
            standby=self._director.standby,
            coming=self._director.coming,
            least_delay_s=least_delay_s,
            on_pace=self._on_pace if self._settings.adaptive else None,
        )

    def _on_pace(self, pace: Pace) -> None:
        if self._adaptation is not None:
            self._adaptation.on_pace(pace)

    def _without_what_is_missing(self, settings: SessionSettings) -> SessionSettings:
        """Noise suppression is worth a notice, but not a session."""
        if not settings.sound.has_noise_suppression:
            return settings
        try:
            check_suppression()
        except UsageError as error:
            self._reporter.fail(error)
            sound = msgspec.structs.replace(settings.sound, has_noise_suppression=False)
            return msgspec.structs.replace(settings, sound=sound)
        return settings

    def cancel(self) -> None:
        """Make a running `start` or change end with `Cancelled` soon."""
        self._cancelled.set()

    def stop(self, reason: Reason | None = None) -> None:
        """End the session: devices given back, files complete. Safe to call twice."""
        if self.state is SessionState.IDLE:
            return
        self._reporter.enter(SessionState.STOPPING, Reason(code="session.stopping", message="Stopping."))
        self._give_back()
        ended = Reason(code="session.stopped", message="The session has ended.")
        self._reporter.enter(SessionState.IDLE, reason or ended)

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
        self._sound.end()
        self._outputs.close()
        self._director.join(_LOADER_TIMEOUT_S)
        self._director.close()
        if self._graph is not None:
            _close_runner(self._graph.runner, making)
            self._graph = None

    # ------------------------------------------------------------------------------------------- live changes

    def set_portrait(self, portrait: str) -> None:
        """Prepare another portrait beside the running one and let it take over between two frames."""
        self._running()
        self._director.change(portrait=portrait)

    def set_canvas(self, canvas: CanvasSettings) -> None:
        """Change fill, colour or mirroring. Raises `UsageError` for another size, which ends the session instead."""
        now = self._settings.canvas
        if (canvas.width, canvas.height) != (now.width, now.height):
            raise UsageError(
                "The size of the picture cannot change while it is live.", hint="Stop, change it, and start again."
            )
        self._running()
        self._director.change(canvas=canvas)

    def set_source(self, source: Source) -> None:
        """Listen to another microphone or file; the present one goes on if that cannot be opened."""
        self._running()
        self._sound.set_source(source)

    def set_muted(self, is_muted: bool) -> None:
        """Mute at once, at both ends: what is still in the pipe is neither shown nor heard."""
        self._running()
        self._sound.set_muted(is_muted)

    def set_talking(self, is_talking: bool) -> None:
        """The push-to-talk key went down or up."""
        self._running()
        self._sound.set_talking(is_talking)

    def set_sound(self, sound: SoundSettings) -> None:
        """Another gate, push-to-talk on or off. Raises `UsageError` for noise suppression, which has a delay of its
        own that the session was not made for."""
        self._running()
        self._sound.set_sound(sound)

    def set_camera(self, camera: CameraSettings | None) -> None:
        """Open the virtual camera, another one, or close it; the picture goes on, and so does the camera in use where
        there is no such other one."""
        self._running()
        self._outputs.change_camera(camera)

    def set_voice_out(self, settings: VoiceOutSettings | None) -> None:
        """Play the delayed voice on an output, another one, or nowhere."""
        self._running()
        self._sound.voice.change(settings)

    def start_recording(self, path: str, *, may_replace: bool = False) -> None:
        """Record picture and sound from now on."""
        self._running()
        self._outputs.start_recording(path, may_replace=may_replace)

    def stop_recording(self) -> None:
        """Complete the recording."""
        self._outputs.stop_recording()

    def take_snapshot(self, path: str) -> Path:
        """Write the picture that is shown next as PNG."""
        self._running()
        return self._outputs.take_snapshot(path)

    def _presented(self) -> int:
        graph = self._graph
        return graph.pacer.presented if graph is not None else 0

    def _running(self) -> Graph:
        if self._graph is None:
            raise UsageError("No session is running.", hint="Start one first.")
        return self._graph

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
            self._reporter.note(Reason(code="session.internal", message=message), is_error=True)
            self._ended.set()

    def _hear(self) -> None:
        ask_for_real_time()
        deadline_s = self._clock.now()
        while not self._stopping.is_set():
            self._sound.step()
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
        ask_for_real_time()
        deadline_s = self._clock.now()
        while not self._clock.wait_until(deadline_s, self._stopping):
            deadline_s = pacer.tick(self._clock.now())

    def _watch(self) -> None:
        deadline_s = self._clock.now() + _STATS_EVERY_S
        while not self._clock.wait_until(deadline_s, self._stopping):
            deadline_s = self._clock.now() + _STATS_EVERY_S
            self._reporter.emit(self.stats())
            self._outputs.drop_failed()
            if self._sound.look():
                self._ended.set()
            self._tell_whether_late()
            self._tell_of_slow_devices()

    def _tell_whether_late(self) -> None:
        graph = self._running()
        is_late = graph.pacer.held_in_a_row > self._settings.fps // 2 and not graph.queue.is_emptied
        if is_late and self.state is SessionState.LIVE:
            reason = Reason(
                code="session.holding",
                message="The generator is late, so the last picture is held.",
                hint="Choose a smaller size or another generator.",
            )
            self._reporter.move(SessionState.HOLDING, reason, only_from=SessionState.LIVE)
        elif not is_late and self.state is SessionState.HOLDING:
            reason = Reason(code="session.live", message="The picture moves again.")
            self._reporter.move(SessionState.LIVE, reason, only_from=SessionState.HOLDING)

    def _tell_of_slow_devices(self) -> None:
        """What the voice out would need is kept for the next session."""
        voice = self._sound.voice
        needed_s = self._running().look(voice.line)
        if needed_s is not None:
            voice.remember_need(needed_s)

    def stats(self) -> Stats:
        """The counters now."""
        stats = self._running().stats(self._sound.voice.line)
        quality = self._adaptation.stats() if self._adaptation is not None else stats.quality
        return msgspec.structs.replace(stats, sinks=self._outputs.stats(), quality=quality)


def _delay_for(settings: SessionSettings, voice: AnyVoiceOut | None) -> float:
    """Seconds that the voice out needs; 0 without one."""
    if settings.voice_out is not None and voice is not None:
        return output_memory.delay_for(settings.voice_out, voice.line.offset_s)
    to_come = settings.voice_out_to_come
    return output_memory.delay_for(to_come) if to_come is not None else 0.0


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


class _SessionStage(Stage):
    """What the director says becomes events and states of the session."""

    def __init__(self, session: Broadcast) -> None:
        self._session = session
        self._reporter = session._reporter

    def on_notices(self, notices: list[Notice]) -> None:
        self._reporter.pass_on(notices)

    def on_error(self, error: StandinError) -> None:
        self._reporter.fail(error)

    def on_standby(self, code: str, message: str, hint: str) -> None:
        self._reporter.move(SessionState.FALLBACK, Reason(code=code, message=message, hint=hint))

    def on_ready(self) -> None:
        self._reporter.move(SessionState.LIVE, Reason(code="session.live", message="The picture is live."))

    def presented(self) -> int:
        return self._session._presented()

    def may_return(self, scene: Scene) -> float:
        adaptation = self._session._adaptation
        return adaptation.may_return(scene, self._session._clock.now()) if adaptation is not None else 0.0

    def on_size_refused(self) -> None:
        if self._session._adaptation is not None:
            self._session._adaptation.on_size_refused()
