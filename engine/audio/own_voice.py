"""Standin must not listen to itself: where the sound server has put the microphone's stream is watched."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable

from engine.audio.pulse_modules import OwnStreams, own_streams, subscribe
from engine.errors import StandinError

logger = logging.getLogger(__name__)

_EVENTS_TOGETHER_S = 0.1
_END_WITHIN_S = 3.0
_LONGEST_PAUSE_S = 60.0
"""Where no server answers there may never be one (plain ALSA), and each try is a process."""


class OwnVoiceGuard:
    """Tells when the sound server has moved our microphone to where our own voice is heard; on a thread of its own.

    A source that vanishes leaves its streams to the next one, and where there is no other that is Standin's own
    microphone, or the monitor of what we play on: the voice would go round for ever. Linux only.
    """

    def __init__(
        self,
        streams: Callable[[], OwnStreams] = own_streams,
        subscribe: Callable[[], subprocess.Popen[bytes]] = subscribe,
        *,
        again_after_s: float = 2.0,
    ) -> None:
        self._streams, self._subscribe, self._again_after_s = streams, subscribe, again_after_s
        self._ended = threading.Event()
        self._chosen: frozenset[str] = frozenset()
        self._events: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="own-voice", daemon=True)
        self.is_hearing_itself = False

    @staticmethod
    def is_needed(platform: str = sys.platform) -> bool:
        """Whether there can be a server that moves streams."""
        return platform.startswith("linux") and shutil.which("pactl") is not None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more by itself; does not wait. `look` and `has_choice` may still be called."""
        self._ended.set()
        events = self._events
        if events is not None and events.stdin is not None:
            events.stdin.close()

    def look(self) -> bool:
        """Look once: whether what we listen to is our own voice; false where no server answers."""
        streams = self._known()
        is_ours = any(self._is_refused(source, streams) for source in streams.recorded)
        if streams.recorded and not is_ours:
            self._chosen = streams.recorded
        return is_ours

    def has_choice(self) -> bool:
        """Whether the server has any source that we may listen to; true where no server answers."""
        streams = self._known()
        return not streams.sources or any(not self._is_refused(source, streams) for source in streams.sources)

    def _known(self) -> OwnStreams:
        try:
            return self._streams()
        except StandinError as error:
            logger.debug("where the microphone leads is not known: %s", error)
            return OwnStreams()

    def _is_refused(self, source: str, streams: OwnStreams) -> bool:
        sink = source.removesuffix(".monitor")
        if source.startswith("standin_") or (sink != source and sink in streams.played):
            return True
        # Nobody chose a monitor that comes in place of a microphone: what it hears is the others in the call.
        has_lost = bool(self._chosen) and not self._chosen <= streams.sources
        return sink != source and has_lost and source not in self._chosen

    def _run(self) -> None:
        pause_s = self._again_after_s
        while not self._ended.is_set():
            has_told = False
            try:
                has_told = self._follow(self._subscribe())
            except OSError as error:
                logger.debug("the sound server tells nothing: %s", error)
            pause_s = self._again_after_s if has_told else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._ended.wait(pause_s)

    def _follow(self, events: subprocess.Popen[bytes]) -> bool:
        """Look at the beginning and after each event, ten times a second at most, until the server ends; whether it
        has told of anything."""
        assert events.stdin is not None and events.stdout is not None
        self._events = events
        has_told = False
        try:
            while not self._ended.is_set():  # after `_events` is there: `end` sees the one, or this the other
                self.is_hearing_itself = self.look()
                if not _await_event(events.stdout.fileno()):
                    break
                has_told = True
                self._ended.wait(_EVENTS_TOGETHER_S)
        finally:
            self._events = None
            events.stdin.close()
            try:
                events.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                events.kill()
                events.wait()
            events.stdout.close()
        return has_told


def _await_event(file: int) -> bool:
    """Wait for news of streams, sources or the server; false when there will be none."""
    while data := os.read(file, 65536):
        if any(word in data for word in (b"source", b"server", b"sink")):
            return True
    return False
