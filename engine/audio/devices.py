"""The sound system's inputs and outputs, by name and host API; indices never leave this module.

PortAudio freezes its list of devices when it starts and renumbers it when it starts again, so an index kept anywhere
may mean another device later.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

from engine.device_names import same_device
from engine.errors import DeviceError, MicrophoneError, VoiceOutError
from engine.protocol.messages import AudioDevice

logger = logging.getLogger(__name__)

_lock = threading.RLock()
_count_lock = threading.Lock()
_open_streams = 0

device_lock = _lock
"""Hold it from `find_device` to `OpenStream.opened`, no longer: an index means another device after `refresh`, and a
driver may take any time to open one."""


def sound_library() -> Any:
    """The sounddevice module. Raises `DeviceError` where PortAudio is missing."""
    try:
        import sounddevice
    except OSError as error:
        hints = {
            "linux": "Install it: sudo apt install libportaudio2 (Fedora: portaudio, Arch: portaudio).",
            "darwin": "Install it: brew install portaudio.",
        }
        raise DeviceError(
            "The sound library PortAudio is not installed.",
            code="audio.no_portaudio",
            hint=hints.get(sys.platform, "Install Standin again."),
            detail=str(error),
        ) from error
    return sounddevice


def list_audio_devices() -> tuple[list[AudioDevice], list[AudioDevice]]:
    """(microphones, outputs) as they are now; the list is renewed unless a stream of ours is open.

    Raises `DeviceError` without PortAudio. No devices at all is an empty list, not an error.
    """
    with _lock:
        refresh()
        return _listed("input"), _listed("output")


def refresh() -> None:
    """Let PortAudio look again; does nothing while a stream of ours is open, which it would kill."""
    library = sound_library()
    with _lock:
        if _open_streams == 0:
            library._terminate()
            library._initialize()


def has_open_streams() -> bool:
    """Whether `refresh` would do nothing."""
    return _open_streams > 0


def find_device(kind: str, name: str, host_api: str) -> tuple[int, AudioDevice]:
    """PortAudio's present index and the description of an input or output; empty names mean the default.

    Raises `MicrophoneError` or `VoiceOutError`. `same_device` says which name is meant; without a host API the first
    one that has it wins.
    """
    error = MicrophoneError if kind == "input" else VoiceOutError
    noun = "microphone" if kind == "input" else "sound output"
    with _lock:
        if not name:
            index = _default_index(kind)
            if index < 0:
                raise error(
                    f"This computer has no {noun}.",
                    code=f"{error.default_code}.none",
                    hint="Connect one and try again.",
                )
            return index, _described(index, kind)
        fits = [i for i in _indices(kind) if not host_api or _host_api(i) == host_api]
        names = {i: str(_info(i)["name"]) for i in fits}
        meant = same_device(name, names.values())
        for index in fits:
            if names[index] == meant:
                return index, _described(index, kind)
    raise error(
        f'The {noun} "{name}" is not there.',
        code=f"{error.default_code}.missing",
        hint="Connect it, or choose another one (standin devices lists them).",
    )


class OpenStream:
    """Counts open streams, so that `refresh` leaves them alone. Use as `with`-less pair `opened`/`closed`.

    A stream counts from before it is opened, or PortAudio could be started again meanwhile. Neither waits for a driver.
    """

    @staticmethod
    def opened() -> None:
        """One is about to be opened; call it under `device_lock`, and `closed` if that fails."""
        global _open_streams
        with _count_lock:
            _open_streams += 1

    @staticmethod
    def closed() -> None:
        global _open_streams
        with _count_lock:
            _open_streams = max(0, _open_streams - 1)


def _listed(kind: str) -> list[AudioDevice]:
    return [_described(index, kind) for index in _indices(kind)]


def _indices(kind: str) -> list[int]:
    devices = sound_library().query_devices()
    return [i for i, info in enumerate(devices) if info[f"max_{kind}_channels"] > 0]


def _described(index: int, kind: str) -> AudioDevice:
    info = _info(index)
    return AudioDevice(
        name=info["name"],
        host_api=_host_api(index),
        channels=int(info[f"max_{kind}_channels"]),
        rate_hz=round(info["default_samplerate"]),
        is_default=index == _default_index(kind),
    )


def _info(index: int) -> Any:
    return sound_library().query_devices(index)


def _host_api(index: int) -> str:
    library = sound_library()
    return str(library.query_hostapis(library.query_devices(index)["hostapi"])["name"])


def _default_index(kind: str) -> int:
    """The default device, or the first of its kind where the system names none; -1 if there is none."""
    library = sound_library()
    index = int(library.default.device[0 if kind == "input" else 1])
    if index >= 0:
        return index
    found = _indices(kind)
    return found[0] if found else -1
