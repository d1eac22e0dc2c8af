"""Every error that a person may see, in one tree.

StandinError
├── UsageError            the command, option or setting is wrong
├── PortraitError         a picture cannot be used
├── AudioFileError        a sound file cannot be used
├── DeviceError
│   ├── MicrophoneError   no sound can be taken from the chosen microphone
│   ├── VoiceOutError     the delayed voice cannot be played
│   └── CameraError       the virtual camera cannot be fed
├── OutputError           a file cannot be written
├── ModelFilesError       files of a model are missing or damaged
├── GeneratorError        a generator failed
├── ProtocolError         the other process said something that cannot be understood
└── Cancelled             the user changed their mind
"""

from __future__ import annotations


class StandinError(Exception):
    """One sentence for a person, with a stable code for programs.

    `code` names the cause (`portrait.not_an_image`), `message` says what is wrong, `hint` what to do about it,
    `detail` keeps a library's own words for the log. The cause is attached with `raise ... from`.
    """

    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(StandinError):
    """The command line, a setting or a command's arguments are wrong (exit status 2)."""

    default_code = "usage"


class PortraitError(StandinError):
    """A picture is missing, unreadable, too large, or shows nothing that can be animated."""

    default_code = "portrait"


class AudioFileError(StandinError):
    """A sound file is missing, unreadable or empty."""

    default_code = "audio_file"


class DeviceError(StandinError):
    """A device is missing, busy, forbidden, or does not do what is asked."""

    default_code = "device"


class MicrophoneError(DeviceError):
    """No sound can be taken from the chosen microphone."""

    default_code = "microphone"


class VoiceOutError(DeviceError):
    """The delayed voice cannot be played on the chosen device."""

    default_code = "voice_out"


class CameraError(DeviceError):
    """The virtual camera cannot be opened or no longer takes frames."""

    default_code = "camera"


class OutputError(StandinError):
    """A file cannot be written: no folder, no permission, no space."""

    default_code = "output"


class ModelFilesError(StandinError):
    """Files of a model are missing, incomplete or not the expected ones."""

    default_code = "model_files"


class GeneratorError(StandinError):
    """A generator could not be prepared, or failed while it ran."""

    default_code = "generator"


class ProtocolError(StandinError):
    """A line on the control channel is not a message of this version."""

    default_code = "protocol"


class Cancelled(StandinError):
    """Long work was stopped on request; nothing is wrong."""

    default_code = "cancelled"
