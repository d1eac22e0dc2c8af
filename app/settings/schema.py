"""What the window remembers between runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """One flat record; device names are empty for the system's default. `geometry` is Qt's, base64.

    `use` is what the picture was set for, empty for a choice of one's own; `generator_options` is a JSON object.
    """

    portrait: str = "sample:maya"
    has_microphone: bool = True
    microphone: str = ""
    microphone_host: str = ""
    gate: str = "auto"
    gate_dbfs: int = -50
    is_push_to_talk: bool = False
    has_noise_suppression: bool = False
    is_adaptive: bool = True
    has_voice_out: bool = False
    voice_out: str = ""
    voice_out_host: str = ""
    canvas: str = "1280x720"
    fill: str = "blur"
    colour: str = "#20242c"
    fps: int = 25
    use: str = ""
    generator: str = "puppet"
    generator_options: str = "{}"
    is_preview_mirrored: bool = True
    is_output_mirrored: bool = False
    theme: str = "system"
    camera_device: str = ""
    camera_backend: str = ""
    has_consented: bool = False
    geometry: str = ""


CHOICES: dict[str, tuple[object, ...]] = {
    "canvas": ("640x360", "960x540", "1280x720", "1920x1080"),
    "fill": ("blur", "solid", "crop"),
    "fps": (25, 30),
    "generator": ("puppet", "flashtalk"),
    "use": ("", "conversation", "balanced", "presentation"),
    "gate": ("auto", "level", "off"),
    "gate_dbfs": tuple(range(-80, -19, 5)),
    "theme": ("system", "light", "dark"),
}


def from_values(values: dict[str, object]) -> tuple[AppSettings, list[str]]:
    """The settings in `values`, and the names of those that are not possible and fell back to their default."""
    good: dict[str, Any] = {}
    bad: list[str] = []
    for field in fields(AppSettings):
        if field.name not in values:
            continue
        value = values[field.name]
        if type(value) is type(field.default) and value in CHOICES.get(field.name, (value,)):
            good[field.name] = value
        else:
            bad.append(field.name)
    return AppSettings(**good), bad
