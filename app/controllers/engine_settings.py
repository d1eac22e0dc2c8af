"""What the window keeps, as the settings that the engine takes."""

from __future__ import annotations

import json
from typing import Any, Literal, cast

from app.settings.schema import AppSettings
from engine import settings as s


def source_of(v: AppSettings) -> s.Source:
    """The microphone, or silence."""
    return s.MicrophoneSource(name=v.microphone, host_api=v.microphone_host) if v.has_microphone else s.SilentSource()


def voice_out_of(v: AppSettings) -> s.VoiceOutSettings | None:
    """Where the delayed voice goes; None for nowhere."""
    return s.VoiceOutSettings(name=v.voice_out, host_api=v.voice_out_host) if v.has_voice_out else None


def canvas_of(v: AppSettings) -> s.CanvasSettings:
    """Size and surroundings of the picture."""
    width, height = (int(n) for n in v.canvas.split("x"))
    fill = cast(Literal["blur", "solid", "crop"], v.fill)  # one of `CHOICES`
    return s.CanvasSettings(width=width, height=height, fill=fill, colour=v.colour, is_mirrored=v.is_output_mirrored)


def camera_of(v: AppSettings) -> s.CameraSettings:
    """The chosen virtual camera."""
    return s.CameraSettings(device=v.camera_device, backend=v.camera_backend)


def sound_of(v: AppSettings) -> s.SoundSettings:
    """What is done with the microphone's sound."""
    mode = cast(Literal["off", "auto", "level"], v.gate)  # one of `CHOICES`
    gate = s.GateSettings(mode=mode, level_dbfs=float(v.gate_dbfs))
    return s.SoundSettings(
        gate=gate, has_noise_suppression=v.has_noise_suppression, is_push_to_talk=v.is_push_to_talk
    )  # fmt: skip


def generator_of(v: AppSettings) -> s.GeneratorSettings:
    """What makes the picture; options that are no JSON object any more are the defaults."""
    try:
        options: Any = json.loads(v.generator_options)
    except ValueError:
        options = {}
    return s.GeneratorSettings(name=v.generator, options=options if isinstance(options, dict) else {})


def session_of(v: AppSettings, *, is_muted: bool) -> s.SessionSettings:
    """A preview without devices: these come after the first picture."""
    return s.SessionSettings(
        portrait=v.portrait, source=s.SilentSource(), generator=generator_of(v), canvas=canvas_of(v), fps=v.fps,
        voice_out_to_come=voice_out_of(v), has_preview=True, is_muted=is_muted, sound=sound_of(v),
        adaptive=v.is_adaptive,
    )  # fmt: skip
