"""The session's microphone: waited for when it goes away, followed when the default changes, explained when silent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from engine.audio.hotplug import ZERO_FOR_S, DefaultFollower, Waiter, why_zeros
from engine.audio.own_voice import OwnVoiceGuard
from engine.audio.sources import AudioSource
from engine.clock import Clock
from engine.protocol.messages import AudioDevice, Reason
from engine.settings import MicrophoneSource, Source
from engine.stream.listener import Listener

logger = logging.getLogger(__name__)

_OWN_VOICE = "The sound server has put Standin's own voice in place of the microphone"
_OWN_VOICE_HINT = "Connect a microphone or choose one; Standin's own must not be the system's default."


class MicrophoneHost(Protocol):
    """What the session does for the watch. All but `tell` and `is_voice_played` are called from threads of the watch's
    own."""

    def tell(self, reason: Reason, *, is_error: bool) -> None:
        """Let the user know."""
        ...

    def is_voice_played(self) -> bool:
        """Whether there is a voice out, which a microphone could hear. Called by `look`."""
        ...

    def rest(self) -> None:
        """Listen to nothing."""
        ...

    def open_again(self, wanted: MicrophoneSource) -> AudioSource:
        """Find it, not yet started. Raises `DeviceError`."""
        ...

    def renew(self) -> None:
        """Let PortAudio look again."""
        ...

    def take_back(self, source: AudioSource, waiter: Waiter) -> bool:
        """Listen to it again, unless the waiter has been cancelled (false)."""
        ...

    def follow_default(self, wanted: MicrophoneSource) -> None:
        """The default is another device now: take that one."""
        ...


class MicrophoneWatch:
    """All methods are called under the session's lock: `begin` and `end` by whoever changes the source, `look` by its
    stats thread, a few times a second."""

    def __init__(
        self,
        host: MicrophoneHost,
        clock: Clock,
        *,
        waiter: Callable[..., Waiter] = Waiter,
        guard: Callable[[], OwnVoiceGuard] = OwnVoiceGuard,
    ) -> None:
        self._host, self._clock, self._make_waiter, self._make_guard = host, clock, waiter, guard
        self._wanted: MicrophoneSource | None = None
        self._waiter: Waiter | None = None
        self._follower: DefaultFollower | None = None
        self._guard: OwnVoiceGuard | None = None
        self._is_zero_told = False

    @property
    def is_waiting(self) -> bool:
        """Whether the microphone is away."""
        return self._waiter is not None

    def begin(self, source: Source) -> None:
        """The session listens to `source` now; what was waited for before is not wanted any more."""
        self.end()
        self._is_zero_told = False
        self._wanted = source if isinstance(source, MicrophoneSource) else None
        if self._wanted is not None and DefaultFollower.is_needed(self._wanted):
            self._follower = DefaultFollower(self._on_default)
            self._follower.start()

    def begin_without(self, wanted: MicrophoneSource) -> None:
        """The session begins before its microphone is there. Under the session's lock."""
        message = f'The microphone "{wanted.name}" is not there, so the portrait is silent.'
        hint = "It is taken as soon as it is connected; or choose another one (standin devices lists them)."
        self._host.tell(Reason(code="microphone.lost", message=message, hint=hint), is_error=True)
        self.wait(wanted, word="there now")

    def end(self) -> None:
        """Watch nothing any more; does not wait for threads."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.cancel()
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.end()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.end()
        self._wanted = None

    def look(self, listener: Listener) -> None:
        """Deal with a microphone that is gone, or delivers nothing."""
        source, wanted = listener.source, self._wanted
        if source is None or wanted is None or self.is_waiting:
            return
        if source.has_ended:
            what = f'The microphone "{source.label}" is gone'
            self._wait_for(wanted, what, "It is taken again as soon as it is connected; or choose another one.")
        elif self._is_hearing_itself():
            self._wait_for(wanted, _OWN_VOICE, _OWN_VOICE_HINT)
        elif listener.zero_s >= ZERO_FOR_S and not self._is_zero_told:
            self._is_zero_told = True
            self._host.tell(why_zeros(source.label), is_error=False)

    def _is_hearing_itself(self) -> bool:
        """Watched from the first voice out on."""
        if self._guard is None and self._host.is_voice_played() and OwnVoiceGuard.is_needed():
            self._guard = self._make_guard()
            self._guard.start()
        return self._guard is not None and self._guard.is_hearing_itself

    def _wait_for(self, wanted: MicrophoneSource, what: str, hint: str) -> None:
        message = f"{what}, so the portrait is silent."
        self._host.tell(Reason(code="microphone.lost", message=message, hint=hint), is_error=True)
        self.wait(wanted)

    def wait(self, wanted: MicrophoneSource, *, word: str = "back") -> None:
        """Rest until it can be taken again. Under the session's lock."""
        guard = self._guard  # knows what was listened to before, though it looks no more by itself
        self.end()
        self._wanted = wanted
        self._host.rest()

        def take(source: AudioSource) -> None:
            if not self._host.take_back(source, waiter):
                source.stop()
                return
            message = f'The microphone "{source.label}" is {word}.'
            self._host.tell(Reason(code="microphone.back", message=message), is_error=False)

        waiter = self._waiter = self._make_waiter(
            wanted,
            self._clock,
            open_again=lambda: self._host.open_again(wanted),
            renew=self._host.renew,
            take=take,
            guard=guard,
        )
        waiter.start()

    def taken_back(self) -> None:
        """The waiter has done its work."""
        wanted = self._wanted
        if wanted is not None:
            self.begin(wanted)

    def _on_default(self, device: AudioDevice) -> None:
        wanted = self._wanted
        if wanted is not None and not self.is_waiting:
            logger.info("the default microphone is now %s", device.name)
            self._host.follow_default(wanted)
