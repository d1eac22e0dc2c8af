"""Microphone, sound output and virtual microphone."""

from __future__ import annotations

from typing import Any

from engine.diagnosis.catalogue import Catalogue, Finding
from engine.diagnosis.system import System
from engine.errors import StandinError
from engine.protocol.messages import AudioDevice, DevicesListed

_PORTAUDIO = {
    "debian": "libportaudio2", "fedora": "portaudio", "arch": "portaudio", "suse": "portaudio",
}  # fmt: skip
_PACTL = {"debian": "pulseaudio-utils", "fedora": "pulseaudio-utils", "arch": "libpulse", "suse": "pulseaudio-utils"}
_NAMES_TOLD = 4


def microphones(system: System, texts: Catalogue, devices: DevicesListed) -> list[Finding]:
    """Whether there is one, and whether it is heard."""
    if devices.audio_reason is not None:
        return [_no_sound_at_all(system, texts, "microphone", devices)]
    names = [device.name for device in devices.microphones]
    if not names:
        code = "audio.no_server" if system.is_linux and not _has_server(system) else "microphone.none"
        return [texts.found("microphone", code)]
    told: dict[str, Any] = {"count": len(names), "names": ", ".join(names[:_NAMES_TOLD])}
    return [_heard(system, texts, _default_name(devices.microphones), told)]


def _heard(system: System, texts: Catalogue, name: str, told: dict[str, Any]) -> Finding:
    try:
        peak_dbfs = system.listen()
    except StandinError as error:
        code = error.code if error.code in ("microphone.busy", "microphone.permission") else "microphone.failed"
        return texts.found("microphone", code, name=name, detail=error.detail or error.message)
    if peak_dbfs is None:
        return texts.found("microphone", "microphone.no_sound", name=name)
    if peak_dbfs == float("-inf"):
        return texts.found("microphone", "microphone.all_zero", name=name)
    return texts.found("microphone", "microphone.heard", name=name, level_dbfs=round(peak_dbfs), **told)


def outputs(system: System, texts: Catalogue, devices: DevicesListed) -> list[Finding]:
    """Whether the delayed voice could be played."""
    if devices.audio_reason is not None:
        return []  # told with the microphone
    names = [device.name for device in devices.voice_outs]
    if not names:
        return [texts.found("voice out", "voice_out.none")]
    return [texts.found("voice out", "voice_out.good", count=len(names), names=", ".join(names[:_NAMES_TOLD]))]


def virtual_microphone(system: System, texts: Catalogue, devices: DevicesListed) -> list[Finding]:
    """Whether other programs can be given the delayed voice."""
    from engine.audio.pulse_modules import is_gone, owners_in
    from engine.audio.virtual_microphone import MICROPHONE_LABEL, find_cable

    if not system.is_linux:
        try:
            name = find_cable(devices.voice_outs, system.platform).microphone
        except StandinError:
            return [texts.found("virtual microphone", "virtual_microphone.no_cable")]
        return [texts.found("virtual microphone", "virtual_microphone.good", name=name)]
    listed = system.run(["pactl", "list", "short", "modules"])
    if listed.status is None:
        command = system.install_command(_PACTL)
        return [texts.found("virtual microphone", "virtual_microphone.no_tools", command=command)]
    if not listed.is_good:
        return [texts.found("virtual microphone", "virtual_microphone.no_server")]
    stale = sum(is_gone(owner, system.read) for owner in owners_in(listed.output))
    if stale:
        return [texts.found("virtual microphone", "virtual_microphone.stale", count=stale)]
    return [texts.found("virtual microphone", "virtual_microphone.good", name=MICROPHONE_LABEL)]


def _no_sound_at_all(system: System, texts: Catalogue, name: str, devices: DevicesListed) -> Finding:
    reason = devices.audio_reason
    assert reason is not None
    code = reason.code if reason.code in ("audio.no_portaudio", "audio.hangs") else "microphone.failed"
    command = system.install_command(_PORTAUDIO) if code == "audio.no_portaudio" and system.is_linux else ""
    return texts.found(name, code, command=command, name=name, detail=reason.message)


def _has_server(system: System) -> bool:
    """True also where there is nothing to ask with."""
    asked = system.run(["pactl", "info"])
    return asked.is_good or asked.status is None


def _default_name(devices: list[AudioDevice]) -> str:
    return next((device.name for device in devices if device.is_default), devices[0].name)
