"""The configuration of one run, checked when it is built; sent whole with `Start`.

Plain frozen structs that msgspec turns to and from JSON; no field knows a file, a device or a generator exists.
"""

# msgspec's structs inherit `frozen`; type checkers know only dataclasses, which must repeat it.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any, Literal, Union

import msgspec

from engine.errors import UsageError

CANVAS_SIZES: tuple[tuple[int, int], ...] = ((640, 360), (960, 540), (1280, 720), (1920, 1080))
"""Sizes that call programs show unharmed: 16:9, width a multiple of 64, height even."""

FRAME_RATES: tuple[int, ...] = (25, 30)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings."""


class MicrophoneSource(Settings, tag="microphone"):
    """A microphone by name and host API; empty strings mean the system's default, which is followed when it changes."""

    name: str = ""
    host_api: str = ""
    follows_default: bool = True


class FileSource(Settings, tag="file"):
    """A sound file in the microphone's place, played in real time."""

    path: str
    is_looped: bool = False


class SilentSource(Settings, tag="silent"):
    """No microphone: the portrait rests. What the window shows before a microphone is chosen or allowed."""


Source = Union[MicrophoneSource, FileSource, SilentSource]


class GeneratorSettings(Settings):
    """Which generator, from which seed, with which options of its own."""

    name: str = "puppet"
    seed: int = 0
    options: dict[str, Any] = {}


class CanvasSettings(Settings):
    """What others see around the portrait. `colour` is "#rrggbb", used by the solid fill."""

    width: int = 1280
    height: int = 720
    fill: Literal["blur", "solid", "crop"] = "blur"
    colour: str = "#20242c"
    is_mirrored: bool = False

    def __post_init__(self) -> None:
        if (self.width, self.height) not in CANVAS_SIZES:
            sizes = ", ".join(f"{w}x{h}" for w, h in CANVAS_SIZES)
            raise UsageError(f"A canvas of {self.width}x{self.height} is not offered.", hint=f"Choose one of: {sizes}.")
        digits = self.colour[1:]
        if len(self.colour) != 7 or self.colour[0] != "#" or any(c not in "0123456789abcdefABCDEF" for c in digits):
            raise UsageError(f'"{self.colour}" is not a colour.', hint="Write it as #rrggbb.")


class CameraSettings(Settings):
    """Which virtual camera: empty strings choose the first that can be used. `backend` is "v4l2" or "pipewire"
    (ours, Linux), "pyvirtualcam", or one of that library's backends as "pyvirtualcam:obs"."""

    device: str = ""
    backend: str = ""


VIRTUAL_MICROPHONE = "standin:virtual"
"""In a device name's place in `VoiceOutSettings`: the system's virtual microphone, whichever that is."""


class VoiceOutSettings(Settings):
    """Where the delayed voice goes; empty strings mean the system's default output, "standin:virtual" the virtual
    microphone, which Linux is given by Standin and other systems by a cable that is installed.

    `offset_ms` plays the voice that much later than the picture, below 0 sooner; None is what the last sync test of
    this output has found.
    """

    name: str = ""
    host_api: str = ""
    offset_ms: float | None = None

    def __post_init__(self) -> None:
        if self.offset_ms is not None and not abs(self.offset_ms) <= 300:
            raise UsageError(
                f"A sync offset of {self.offset_ms:g} ms is not offered.", hint="Choose -300 to 300; above 0 is later."
            )


class GateSettings(Settings):
    """The noise gate in front of the generator: "auto" opens above the room's own noise, "level" at `level_dbfs`.

    A sound that is loud enough opens it; `hold_ms` after the last one it closes. The fades last `attack_ms` and
    `release_ms`. `is_heard` lets others hear it, too: else the delayed voice and the recording are left as they are.
    """

    mode: Literal["off", "auto", "level"] = "auto"
    level_dbfs: float = -50.0
    attack_ms: float = 20.0
    hold_ms: float = 350.0
    release_ms: float = 120.0
    is_heard: bool = False

    def __post_init__(self) -> None:
        if not -90.0 <= self.level_dbfs <= -10.0:
            raise UsageError(f"A gate at {self.level_dbfs:g} dBFS is not offered.", hint="Choose -90 to -10.")
        if not (0 < self.attack_ms <= 200 and 0 <= self.hold_ms <= 5000 and 0 < self.release_ms <= 2000):
            raise UsageError(
                "The gate's times are not possible.", hint="Attack up to 200 ms, hold up to 5000, release up to 2000."
            )


class SoundSettings(Settings):
    """What is done with a microphone's sound; files are taken as they are.

    With `is_push_to_talk` there is silence but for the time that the key is held (`SetTalking`).
    """

    gate: GateSettings = GateSettings()
    has_noise_suppression: bool = False
    is_push_to_talk: bool = False


class SessionSettings(Settings):
    """Everything that one live session needs. `portrait` is a path or `sample:ID`."""

    portrait: str
    source: Source = SilentSource()
    generator: GeneratorSettings = msgspec.field(default_factory=GeneratorSettings)
    canvas: CanvasSettings = CanvasSettings()
    fps: int = 25
    camera: CameraSettings | None = None
    voice_out: VoiceOutSettings | None = None
    voice_out_to_come: VoiceOutSettings | None = None
    """Chosen (`SetVoiceOut`) once the session is live, so that no device holds up the first picture: the session's
    delay leaves room for it. A `voice_out` has it by itself."""
    recording: str = ""
    may_replace_recording: bool = False
    has_preview: bool = False
    is_muted: bool = False
    sound: SoundSettings = SoundSettings()
    has_standby: bool = True
    """Go live at once with the generator's standby and let it take over when it is loaded; else load it first."""
    adaptive: bool = True
    """Make do with less while the computer is too slow for more, step by step; else keep to what was chosen."""

    def __post_init__(self) -> None:
        if self.fps not in FRAME_RATES:
            rates = " or ".join(str(r) for r in FRAME_RATES)
            raise UsageError(f"{self.fps} frames a second are not offered.", hint=f"Choose {rates}.")
