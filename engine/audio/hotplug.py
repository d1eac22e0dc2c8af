"""Sound devices that come and go: taken up again by themselves, the system's default followed, silence explained.

PortAudio lists devices once, when it starts, and starting it again ends every stream of the process. So a list that is
true at any time comes from a process of its own (`devices_now`), and PortAudio is started again only when that has seen
what is wanted.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from engine.audio.devices import has_open_streams, list_audio_devices
from engine.audio.own_voice import OwnVoiceGuard
from engine.audio.sources import AudioSource
from engine.audio.virtual_microphone import find_cable
from engine.clock import Clock
from engine.device_names import same_device
from engine.errors import DeviceError, StandinError
from engine.protocol.messages import AudioDevice, Reason
from engine.settings import VIRTUAL_MICROPHONE, MicrophoneSource, VoiceOutSettings

if TYPE_CHECKING:
    from engine.audio.voice_out import AnyVoiceOut

logger = logging.getLogger(__name__)

ZERO_FOR_S = 3.0
"""A real microphone that hears nothing still hears its own noise; exact zeros for this long have another cause."""

_LIST_TIMEOUT_S = 10.0
_FIRST_SOUND_WITHIN_S = 2.0
_POLL_S = 0.02
_LONGEST_PAUSE_S = 30.0

Devices = tuple[list[AudioDevice], list[AudioDevice]]


def devices_now() -> Devices:
    """(microphones, outputs) as they are at this moment, also while streams of ours are open.

    Raises `DeviceError` without PortAudio, or where the sound system does not answer.
    """
    return devices_elsewhere() if has_open_streams() else list_audio_devices()


def devices_elsewhere() -> Devices:
    """As `devices_now`, from a process of its own; takes half a second. Raises `DeviceError`."""
    command = [sys.executable, "-m", "engine.audio.device_list"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIST_TIMEOUT_S, check=True
        )
        answer: Any = json.loads(done.stdout)
        if "error" in answer:
            raise DeviceError(**answer["error"])
        return msgspec.convert((answer["microphones"], answer["outputs"]), Devices)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            "The sound system does not answer.", code="audio.hangs", hint="Restart it, or the computer.",
            detail=repr(error),
        ) from error  # fmt: skip


def is_there(wanted: MicrophoneSource, devices: Devices) -> bool:
    """Whether the wanted microphone is in the list; any one is where the default is wanted."""
    return _is_listed(wanted.name, wanted.host_api, devices[0])


def is_output_there(wanted: VoiceOutSettings, devices: Devices, platform: str = sys.platform) -> bool:
    """Whether the wanted output is in the list; for the virtual microphone, whether it could be made."""
    if wanted.name != VIRTUAL_MICROPHONE:
        return _is_listed(wanted.name, wanted.host_api, devices[1])
    if platform.startswith("linux"):
        return True  # it is no device of PortAudio's, and says itself what it lacks
    try:
        find_cable(devices[1], platform)
    except StandinError:
        return False
    return True


def _is_listed(name: str, host_api: str, devices: list[AudioDevice]) -> bool:
    names = [device.name for device in devices if not host_api or device.host_api == host_api]
    return same_device(name, names) is not None if name else bool(devices)


class _Device(Protocol):
    def stop(self) -> None: ...


Opened = TypeVar("Opened", bound=_Device)


class _Waiting(Generic[Opened]):
    """Opens a device that is away as soon as it is there, on a thread of its own.

    `open_again` finds it (after `renew`, which lets PortAudio look again) and may raise; `take` is given what was
    opened, started and seen to work, and becomes its owner. Both are called from this thread. `cancel` may be called
    from any; whoever takes must look at `is_cancelled` under a lock that the canceller holds, too.
    """

    def __init__(
        self,
        name: str,
        *,
        open_again: Callable[[], Opened],
        renew: Callable[[], None],
        take: Callable[[Opened], None],
        devices: Callable[[], Devices],
        first_try_s: float,
        every_s: float,
    ) -> None:
        self._open_again, self._renew, self._take, self._devices = open_again, renew, take, devices
        self._first_try_s, self._every_s = first_try_s, every_s
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_cancelled(self) -> bool:
        """Nobody wants it any more."""
        return self._cancelled.is_set()

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def cancel(self) -> None:
        """End soon; does not wait for it."""
        self._cancelled.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end, after `cancel`."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = self._first_try_s
        while not self._cancelled.wait(pause_s):
            opened = None
            try:
                if self._is_there() and not self.is_cancelled:
                    self._prepare()
                    opened = self._open_again()
                    self._start(opened)
                    if self._is_proven(opened):
                        self._take(opened)
                        return
            except StandinError as error:
                logger.debug("still away: %s", error)
            except Exception:  # a sound system that comes back may fail in any way; the next try is soon
                logger.exception("a sound device could not be taken up again")
            if opened is not None:
                opened.stop()
            pause_s = self._every_s

    def _is_there(self) -> bool:
        raise NotImplementedError

    def _prepare(self) -> None:
        self._renew()

    def _start(self, opened: Opened) -> None:
        raise NotImplementedError

    def _is_proven(self, opened: Opened) -> bool:
        raise NotImplementedError


class Waiter(_Waiting[AudioSource]):
    """Waits for a microphone; it is there when it delivers sound, and not our own (`guard`)."""

    def __init__(
        self,
        wanted: MicrophoneSource,
        clock: Clock,
        *,
        open_again: Callable[[], AudioSource],
        renew: Callable[[], None],
        take: Callable[[AudioSource], None],
        devices: Callable[[], Devices] = devices_elsewhere,
        guard: OwnVoiceGuard | None = None,
        first_try_s: float = 1.0,
        every_s: float = 2.0,
    ) -> None:
        self.wanted = wanted
        self._clock, self._guard = clock, guard
        super().__init__(
            "microphone-waiter", open_again=open_again, renew=renew, take=take, devices=devices,
            first_try_s=first_try_s, every_s=every_s,
        )  # fmt: skip

    def _is_there(self) -> bool:
        if self._guard is not None and not self._guard.has_choice():
            return False
        return not has_open_streams() or is_there(self.wanted, self._devices())

    def _start(self, opened: AudioSource) -> None:
        opened.start(self._clock)

    def _is_proven(self, opened: AudioSource) -> bool:
        return self._is_heard(opened) and (self._guard is None or not self._guard.look())

    def _is_heard(self, source: AudioSource) -> bool:
        """Some drivers open what is not there: only sound is proof."""
        end_s = time.monotonic() + _FIRST_SOUND_WITHIN_S
        while not source.has_ended:
            if source.read() is not None:  # before the clock: a busy computer may have been away for longer
                return True
            if time.monotonic() >= end_s or self._cancelled.wait(_POLL_S):
                return False
        return False


class OutputWaiter(_Waiting["AnyVoiceOut"]):
    """Waits for a sound output; it is there when it asks for sound.

    Other streams pause while PortAudio looks again. So the first try does without, and each one that did not do is
    followed by a longer pause.
    """

    def __init__(
        self,
        wanted: VoiceOutSettings,
        *,
        open_again: Callable[[], AnyVoiceOut],
        renew: Callable[[], None],
        take: Callable[[AnyVoiceOut], None],
        devices: Callable[[], Devices] = devices_elsewhere,
        first_try_s: float = 1.0,
        every_s: float = 2.0,
    ) -> None:
        self.wanted = wanted
        self._has_tried = False
        super().__init__(
            "output-waiter", open_again=open_again, renew=renew, take=take, devices=devices,
            first_try_s=first_try_s, every_s=every_s,
        )  # fmt: skip

    def _is_there(self) -> bool:
        return not has_open_streams() or is_output_there(self.wanted, self._devices())

    def _prepare(self) -> None:
        if self.wanted.name == VIRTUAL_MICROPHONE and sys.platform.startswith("linux"):
            return  # no device of PortAudio's
        has_others = has_open_streams()
        if self._has_tried or not has_others:
            self._renew()
        if self._has_tried and has_others:
            self._every_s = min(2 * self._every_s, _LONGEST_PAUSE_S)
        self._has_tried = True

    def _start(self, opened: AnyVoiceOut) -> None:
        opened.start()

    def _is_proven(self, opened: AnyVoiceOut) -> bool:
        end_s = time.monotonic() + _FIRST_SOUND_WITHIN_S
        while not opened.has_failed:
            if getattr(opened, "has_sounded", True):  # the virtual microphone has nothing to prove
                return True
            if time.monotonic() >= end_s or self._cancelled.wait(_POLL_S):
                return False
        return False


class DefaultFollower:
    """Tells when the system's default microphone is another one than before; on a thread of its own.

    Not needed on Linux: there the default is a name that the sound server moves by itself.
    """

    def __init__(
        self, on_change: Callable[[AudioDevice], None], *, devices: Callable[[], Devices] = devices_elsewhere,
        every_s: float = 4.0,
    ) -> None:  # fmt: skip
        self._on_change, self._devices, self._every_s = on_change, devices, every_s
        self._ended = threading.Event()
        self._known: tuple[str, str] | None = None
        self._thread = threading.Thread(target=self._run, name="default-microphone", daemon=True)

    @staticmethod
    def is_needed(source: MicrophoneSource, platform: str = sys.platform) -> bool:
        """Whether somebody has to look."""
        return not source.name and source.follows_default and not platform.startswith("linux")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more; does not wait."""
        self._ended.set()

    def look(self) -> None:
        """Look once; the first look only learns."""
        default = next((device for device in self._devices()[0] if device.is_default), None)
        if default is None:
            return
        known, self._known = self._known, (default.name, default.host_api)
        if known not in (None, self._known) and not self._ended.is_set():
            self._on_change(default)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except StandinError as error:
                logger.debug("the default microphone is not known: %s", error)
            except Exception:  # whatever it is, the microphone in use goes on
                logger.exception("the default microphone could not be followed")
            if self._ended.wait(self._every_s):
                return


def why_zeros(label: str, platform: str = sys.platform) -> Reason:
    """What to tell about a microphone that delivers exact zeros."""
    hints = {
        "darwin": "Allow Standin (or the terminal it runs in) in System Settings, Privacy & Security, Microphone, and "
        "start it again; or there is a mute switch on the microphone.",
        "win32": "Allow desktop programs in Settings, Privacy & security, Microphone; or there is a mute switch on the "
        "microphone.",
    }
    hint = hints.get(platform, "It is muted in the system's sound settings, or by a switch on the microphone itself.")
    return Reason(code="microphone.all_zero", message=f'The microphone "{label}" delivers exact silence.', hint=hint)
