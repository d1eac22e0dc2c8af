"""Looks at everything Standin needs on this machine; each finding has one cause and one action."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.assets import asset_path
from engine.camera.linux_devices import lists_in_browsers
from engine.errors import StandinError
from engine.gpus.examine import examine_gpus
from engine.paths import data_folder, recordings_folder
from engine.protocol.messages import DevicesListed, Reason

_LEAST_FREE_BYTES = 500 << 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One answer. `state` is "good", "limited" (works with less) or "bad" (something will not work)."""

    name: str
    state: str
    message: str
    hint: str = ""
    code: str = ""


Probe = Callable[[], list[Finding]]


def examine(devices: Callable[[], DevicesListed]) -> list[Finding]:
    """Run every probe; one that fails itself is a finding, too. Takes a second or two, changes nothing."""
    findings: list[Finding] = []
    for name, probe in (
        ("Python", _python),
        ("window", _window),
        ("sound and camera", lambda: _devices(devices())),
        ("face models", _face_models),
        ("GPU", _gpus),
        ("samples", _samples),
        ("recording", _recording),
        ("disk", _disk),
    ):
        try:
            findings += probe()
        except StandinError as error:
            findings.append(Finding(name=name, state="bad", message=error.message, hint=error.hint, code=error.code))
        except Exception as error:  # noqa: BLE001 - a doctor who faints is of no use
            findings.append(
                Finding(name=name, state="bad", message=f"This could not be examined: {error!r}.", code="doctor.failed")
            )
    return findings


def _python() -> list[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding(name="Python", state="good", message=f"Python {version}.")]


def _window() -> list[Finding]:
    if find_spec("PySide6") is None:
        return [
            Finding(
                name="window",
                state="limited",
                message="The window cannot be opened: PySide6 is not installed.",
                hint='Install it: pip install "standin[gui]". The command line works without.',
                code="window.no_qt",
            )
        ]
    return [Finding(name="window", state="good", message="The window can be opened.")]


def _devices(found: DevicesListed) -> list[Finding]:
    findings = [
        _sound("microphone", [d.name for d in found.microphones], found.audio_reason),
        _sound("voice out", [d.name for d in found.voice_outs], found.audio_reason),
    ]
    ready = [camera for camera in found.cameras if camera.problem is None]
    for camera in ready:
        findings.append(
            Finding(
                name="camera",
                state="good",
                message=f'"{camera.label}" ({camera.device}) is ready; pick it in your call.',
            )
        )
        if camera.backend == "v4l2" and not lists_in_browsers(camera.device):
            findings.append(
                Finding(
                    name="camera",
                    state="limited",
                    message=f"Chrome and Meet will not list {camera.device}.",
                    hint="Reload the driver with exclusive_caps=1: sudo modprobe -r v4l2loopback && "
                    "sudo modprobe v4l2loopback exclusive_caps=1 card_label='Standin Camera'",
                    code="camera.no_exclusive_caps",
                )
            )
    for camera in found.cameras:
        if camera.problem is not None:
            findings.append(_from_reason("camera", "limited" if ready else "bad", camera.problem))
    if not found.cameras and found.cameras_reason is not None:
        findings.append(_from_reason("camera", "bad", found.cameras_reason))
    return findings


def _sound(name: str, devices: list[str], reason: Reason | None) -> Finding:
    if reason is not None:
        return _from_reason(name, "bad", reason)
    if not devices:
        return Finding(
            name=name,
            state="bad",
            message=f"There is no {'microphone' if name == 'microphone' else 'sound output'}.",
            hint="Connect one, or check the system's sound settings.",
            code=f"{name.replace(' ', '_')}.none",
        )
    return Finding(name=name, state="good", message=f"{len(devices)} found: {', '.join(devices[:4])}.")


def _face_models() -> list[Finding]:
    from engine.generators.puppet.models import find_face_models

    if find_face_models() is None:
        return [
            Finding(
                name="face models",
                state="limited",
                message="Faces are not found by themselves: three small model files are missing.",
                hint="Run: python3 packaging/bootstrap.py setup. Until then, place the face marks by hand.",
                code="models.face",
            )
        ]
    return [Finding(name="face models", state="good", message="Faces are found by themselves.")]


def _gpus() -> list[Finding]:
    return [
        Finding(name="GPU", state=state, message=reason.message, hint=reason.hint, code=reason.code)
        for state, reason in examine_gpus()
    ]


def _samples() -> list[Finding]:
    asset_path("portraits/index.json")
    return [Finding(name="samples", state="good", message="The sample portraits are there.")]


def _recording() -> list[Finding]:
    import av.codec
    import av.error

    for codec in ("libx264", "aac"):
        try:
            av.codec.Codec(codec, "w")
        except (ValueError, av.error.FFmpegError):
            return [
                Finding(
                    name="recording",
                    state="bad",
                    message=f"Clips cannot be recorded: this FFmpeg has no {codec}.",
                    hint="Install PyAV from PyPI: pip install --force-reinstall av.",
                    code="recording.no_codec",
                )
            ]
    return [Finding(name="recording", state="good", message=f"Clips go to {recordings_folder()}.")]


def _disk() -> list[Finding]:
    folder = _existing(data_folder())
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        return [
            Finding(
                name="disk",
                state="limited",
                message=f"Only {free >> 20} MB are free on the disk of {folder}.",
                hint="Free some space before you record.",
                code="disk.low",
            )
        ]
    return [Finding(name="disk", state="good", message=f"{free / 1e9:.0f} GB free.")]


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _from_reason(name: str, state: str, reason: Reason) -> Finding:
    return Finding(name=name, state=state, message=reason.message, hint=reason.hint, code=reason.code)
