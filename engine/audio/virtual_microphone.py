"""The microphone that other programs are given: what Standin says, delayed to fit the picture.

Linux: a null sink to play into and a source made of its monitor (browsers list no plain monitors), both loaded into the
running PulseAudio or PipeWire server without root, and gone with the process that made them. Windows and macOS: a
virtual cable that the user has installed, found among the outputs by its exact name.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

from engine.audio.devices import list_audio_devices
from engine.audio.pulse_modules import ServerModules, check_server
from engine.audio.pulse_stream import PulseError, check_library
from engine.errors import VoiceOutError
from engine.protocol.messages import AudioDevice

logger = logging.getLogger(__name__)

MICROPHONE_LABEL = "Standin Microphone"
SINK_LABEL = "Standin Voice"
_LAST = "priority.session=0 priority.driver=0"
"""PipeWire's session manager makes neither a default while there is another one. PulseAudio computes priorities itself:
hardware goes before both, but ours before any monitor (see `own_voice`)."""


@dataclass(frozen=True, kw_only=True)
class Cable:
    """An output whose other end is a microphone: play into `device`, choose `microphone` in the call."""

    device: AudioDevice
    microphone: str


def find_cable(outputs: list[AudioDevice], platform: str = sys.platform) -> Cable:
    """The virtual cable among these outputs. Raises `VoiceOutError` that says which one to install.

    VB-CABLE shows itself under every host API; WASAPI is the one without MME's 31 characters and without resampling.
    """
    if platform == "win32":
        found = [device for device in outputs if device.name.startswith("CABLE Input")]
        found.sort(key=lambda device: (device.host_api != "Windows WASAPI", device.host_api == "Windows WDM-KS"))
        if found:
            return Cable(device=found[0], microphone=found[0].name.replace("CABLE Input", "CABLE Output", 1))
        raise _missing("VB-CABLE", "Install it from vb-audio.com/Cable (free, as administrator), then restart Windows.")
    found = [device for device in outputs if device.name in ("BlackHole 2ch", "BlackHole 16ch", "BlackHole 64ch")]
    found.sort(key=lambda device: int(device.name.split()[1][:-2]))
    if found:
        return Cable(device=found[0], microphone=found[0].name)
    raise _missing("BlackHole 2ch", "Install it: brew install blackhole-2ch, then restart the Mac.")


def virtual_microphone_label(outputs: list[AudioDevice], platform: str = sys.platform) -> str:
    """What the virtual microphone will be called in a call. Raises `VoiceOutError` with what is missing for one."""
    if not platform.startswith("linux"):
        return find_cable(outputs, platform).microphone
    check_server()
    try:
        check_library()
    except PulseError as error:
        raise VoiceOutError(error.message, code="voice_out.no_libpulse", hint=error.hint) from error
    return MICROPHONE_LABEL


def present_cable() -> Cable:
    """`find_cable` among the outputs that there are now."""
    return find_cable(list_audio_devices()[1])


def _missing(name: str, hint: str) -> VoiceOutError:
    return VoiceOutError(
        f"The virtual microphone needs {name}, which is not installed.", code="voice_out.no_cable", hint=hint
    )


class ServerMicrophone:
    """The null sink and its microphone in the sound server, made by `open` and removed by `close`.

    All methods come from one thread at a time. Raises `VoiceOutError`.
    """

    def __init__(self) -> None:
        self._modules = ServerModules()
        self.sink = self.source = ""
        self.label = MICROPHONE_LABEL

    def open(self) -> None:
        """Make both, or find that they are still there. Removes what engines that died have left behind."""
        if self.sink and self._modules.are_loaded():
            return
        self._modules.remove()
        self._modules.remove_stale()
        for number in range(1, 10):
            ending, spoken = ("", "") if number == 1 else (f"_{number}", f" {number}")
            self.sink, self.source = f"standin_voice{ending}", f"standin_microphone{ending}"
            self.label = MICROPHONE_LABEL + spoken
            if self._modules.has_name(self.sink) or self._modules.has_name(self.source):
                continue
            if self._load(SINK_LABEL + spoken):
                logger.info("made the virtual microphone %s (%s)", self.label, self.source)
                return
            self._modules.remove()
        self.sink = self.source = ""
        raise VoiceOutError(
            "The sound server did not make the virtual microphone.",
            code="voice_out.not_made",
            hint="Choose another output, or start the sound server again (pulseaudio -k).",
        )

    def close(self) -> None:
        """Remove both; safe to call twice. A server that does not answer has lost them anyway."""
        self.sink = self.source = ""
        self._modules.close()

    def _load(self, sink_label: str) -> bool:
        owner = self._modules.owner
        feed = (
            f"sink_name={self.sink}",
            "rate=48000",
            "channels=1",
            "channel_map=mono",
            f"sink_properties=\"standin.owner={owner} device.description='{sink_label}' {_LAST}\"",
        )
        # Without rewinds it renders 50 ms ahead at most, where else it would begin with two seconds that are lost;
        # PulseAudio before 15 does not know the word.
        is_made = self._modules.load("module-null-sink", "norewinds=1", *feed)
        is_made = is_made or self._modules.load("module-null-sink", *feed)
        return is_made and self._modules.load(
            "module-remap-source",
            f"master={self.sink}.monitor",
            f"source_name={self.source}",
            "channels=1",
            "channel_map=mono",
            f"source_properties=\"standin.owner={owner} device.description='{self.label}' {_LAST}\"",
        )
