"""A session's sound: which source is listened to, and what is done with what it says."""

# pyright: reportPrivateUsage=false
# `_MicrophoneHost` below is a part of the session.

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from engine.clock import Clock
from engine.errors import MicrophoneError, StandinError, UsageError
from engine.protocol.messages import Reason
from engine.settings import (
    GateSettings,
    MicrophoneSource,
    SessionSettings,
    SilentSource,
    SoundSettings,
    Source,
)
from engine.sinks.base import AudioSink
from engine.stream.graph import Graph
from engine.stream.microphone_watch import MicrophoneWatch
from engine.stream.reporter import Reporter
from engine.stream.session_voice import SessionVoice
from engine.stream.sources import open_source

if TYPE_CHECKING:
    from engine.audio.hotplug import Waiter
    from engine.audio.sources import AudioSource


logger = logging.getLogger(__name__)


class SessionSound:
    """Devices are opened, closed and exchanged under `_devices_lock`, for seconds; what the audio thread uses changes
    under `_audio_lock`, which is taken after the other one and held for moments. `step` is the audio thread's, `look`
    the statistics', the rest the session's. `voice` is where it goes."""

    def __init__(self, settings: SessionSettings, clock: Clock, reporter: Reporter) -> None:
        self._clock, self._reporter = clock, reporter
        self._source, self._sound = settings.source, settings.sound
        self._graph: Graph | None = None
        self._audio_lock = threading.Lock()
        self._devices_lock = threading.RLock()
        self._has_stopped_microphone = self._is_absent = False
        self._microphone = MicrophoneWatch(_MicrophoneHost(self), clock)
        self.voice = SessionVoice(
            settings.voice_out, self._audio_lock, self._devices_lock, reporter, renew=self._renew_for_voice
        )

    # ------------------------------------------------------------------------------------------- beginning and end

    def attach(self, graph: Graph, settings: SessionSettings) -> None:
        """From now on this is what hears. `settings` are those of the start."""
        self._graph, self._sound = graph, settings.sound
        graph.listener.is_muted = settings.is_muted
        graph.listener.talk_key.is_needed = settings.sound.is_push_to_talk
        self.voice.attach(graph.listener)

    def first_source(self) -> AudioSource:
        """What the session begins with, not yet started: silence where the microphone that was named is not there,
        which is then waited for. Raises `MicrophoneError`, `DeviceError` or `AudioFileError`."""
        try:
            return open_source(self._source)
        except MicrophoneError as error:
            if error.code != "microphone.missing":
                raise
            self._is_absent = True
            return open_source(SilentSource())

    def go_live(self, source: AudioSource) -> None:
        """Start `source`, and with it the session's clock."""
        source.start(self._clock)
        self._hearing().go_live(source, self._gate_for(self._source))
        if self._is_absent and isinstance(self._source, MicrophoneSource):
            with self._devices_lock:
                self._microphone.begin_without(self._source)
        else:
            self._microphone.begin(self._source)

    def end(self) -> None:
        """Give the devices back; after the audio thread has ended."""
        with self._devices_lock:
            self._microphone.end()
        self.voice.end()
        if self._graph is not None and self._graph.listener.source is not None:
            self._graph.listener.source.stop()
        self._graph = None

    def step(self) -> None:
        """Pass on what has been heard."""
        graph = self._graph
        if graph is None:
            return
        with self._audio_lock:
            graph.listener.step()
            line = self.voice.line
            if line is not None:
                graph.steer(line)

    def look(self) -> bool:
        """Deal with devices that are gone; whether a file has been spoken to its end and shown."""
        has_ended = self._follow_source(self._hearing())
        self.voice.look()
        return has_ended

    # --------------------------------------------------------------------------------------------------- the source

    def set_source(self, source: Source) -> None:
        """Listen to another microphone or file; the present one goes on if that cannot be opened."""
        with self._devices_lock:
            before = self._source
            try:
                fresh = self._opened(source)
                fresh.start(self._clock)
            except BaseException:
                if self._has_stopped_microphone and isinstance(before, MicrophoneSource):
                    self._microphone.wait(before)
                raise
            finally:
                self._has_stopped_microphone = False
            self._source = source
            self._microphone.begin(source)
            self._listen_to(fresh, source)

    def _listen_to(self, fresh: AudioSource, settings: Source) -> None:
        listener = self._hearing().listener
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
            listener = self._hearing().listener
            if isinstance(self._source, MicrophoneSource) and listener.source is not None:
                listener.source.stop()
                self._has_stopped_microphone = not self._microphone.is_waiting
            voice = self.voice.release_device()
            refresh()
            if voice is not None:
                self.voice.take_again(voice)

    def _renew_for_voice(self) -> None:
        """As `_renew_devices`, for an output: the microphone is opened again at once, or waited for."""
        with self._devices_lock:
            self._renew_devices()
            source = self._source
            if not self._has_stopped_microphone or not isinstance(source, MicrophoneSource):
                return
            self._has_stopped_microphone = False
            try:
                fresh = open_source(source)
                fresh.start(self._clock)
            except StandinError as error:
                logger.warning("the microphone is waited for: %s", error)
                self._microphone.wait(source)
                return
            self._microphone.begin(source)
            self._listen_to(fresh, source)

    def _follow_source(self, graph: Graph) -> bool:
        source = graph.listener.source
        if not isinstance(self._source, MicrophoneSource):
            return source is not None and source.has_ended and graph.is_shown(graph.listener.heard_until)
        if self._devices_lock.acquire(blocking=False):  # opening a device takes seconds; counters are told all along
            try:
                self._microphone.look(graph.listener)
            finally:
                self._devices_lock.release()
        return False

    # ------------------------------------------------------------------------------------- what is done with sound

    def set_muted(self, is_muted: bool) -> None:
        """Mute at once, at both ends: what is still in the pipe is neither shown nor heard."""
        graph = self._hearing()
        with self._audio_lock:
            was_muted, graph.listener.is_muted = graph.listener.is_muted, is_muted
            if is_muted and not was_muted:  # again and again, no chunk would ever be finished
                graph.silence_unpresented()
                if self.voice.line is not None:
                    self.voice.line.clear()
                if graph.listener.recorder is not None:
                    graph.listener.recorder.silence()

    def set_talking(self, is_talking: bool) -> None:
        """The push-to-talk key went down or up."""
        graph = self._hearing()
        with self._audio_lock:
            key = graph.listener.talk_key
            (key.press if is_talking else key.release)(self._clock.now())

    def set_sound(self, sound: SoundSettings) -> None:
        """Another gate, push-to-talk on or off. Raises `UsageError` for noise suppression, which has a delay of its
        own that the session was not made for."""
        graph = self._hearing()
        if sound.has_noise_suppression != self._sound.has_noise_suppression:
            raise UsageError("Noise suppression cannot change while live.", hint="Stop, change it, and start again.")
        self._sound = sound
        with self._audio_lock:
            graph.listener.set_gate(self._gate_for(self._source))
            graph.listener.talk_key.is_needed = sound.is_push_to_talk
            graph.listener.talk_key.forget()

    def let_record(self, recorder: AudioSink | None) -> None:
        """Give the sound to a recording, or to none any more."""
        if self._graph is not None:
            with self._audio_lock:
                self._graph.listener.recorder = recorder

    def _gate_for(self, source: Source) -> GateSettings | None:
        """Rooms are noisy; a file is as somebody wanted it."""
        return self._sound.gate if isinstance(source, MicrophoneSource) else None

    def _hearing(self) -> Graph:
        if self._graph is None:
            raise UsageError("No session is running.", hint="Start one first.")
        return self._graph


class _MicrophoneHost:
    """What the session does for its `MicrophoneWatch`."""

    def __init__(self, sound: SessionSound) -> None:
        self._sound = sound

    def tell(self, reason: Reason, *, is_error: bool) -> None:
        self._sound._reporter.note(reason, is_error=is_error)

    def is_voice_played(self) -> bool:
        return self._sound.voice.line is not None

    def rest(self) -> None:
        silence = open_source(SilentSource())
        silence.start(self._sound._clock)
        self._sound._listen_to(silence, SilentSource())

    def open_again(self, wanted: MicrophoneSource) -> AudioSource:
        return open_source(wanted)

    def renew(self) -> None:
        self._sound._renew_devices()

    def take_back(self, source: AudioSource, waiter: Waiter) -> bool:
        sound = self._sound
        with sound._devices_lock:
            if waiter.is_cancelled or sound._graph is None:
                return False
            sound._listen_to(source, waiter.wanted)
            sound._microphone.taken_back()
            return True

    def follow_default(self, wanted: MicrophoneSource) -> None:
        sound = self._sound
        with sound._devices_lock:
            if sound._source is wanted and sound._graph is not None:
                sound._renew_devices()
                sound.set_source(wanted)
