"""`standin devices`: microphones, sound outputs and virtual cameras, by the names that the other commands take."""

from __future__ import annotations

import argparse
import json

from engine.commands.console import listing, sentence
from engine.protocol.messages import AudioDevice, CameraDevice, Reason, plain
from engine.server import list_devices


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "devices",
        help="list microphones, sound outputs and virtual cameras",
        description="Everything sound and picture can come from and go to, and why something cannot be used.",
    )
    parser.add_argument("--json", action="store_true", help="print the lists as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List; an empty list is no failure."""
    found = list_devices()
    if arguments.json:
        print(json.dumps(plain(found), indent=2))
        return 0
    print(_audio_list("Microphones", found.microphones, found.audio_reason, "No microphone is connected."), end="\n\n")
    print(
        _audio_list("Sound outputs", found.voice_outs, found.audio_reason, "No sound output is connected."), end="\n\n"
    )
    cameras = [_camera_line(camera) for camera in found.cameras]
    if found.cameras_reason is not None:
        cameras.append(sentence(found.cameras_reason))
    print(listing("Virtual cameras", cameras))
    return 0


def _audio_list(title: str, devices: list[AudioDevice], reason: Reason | None, empty: str) -> str:
    return listing(title, [_audio_line(device) for device in devices], sentence(reason) if reason else empty)


def _audio_line(device: AudioDevice) -> str:
    mark = "  (default)" if device.is_default else ""
    return f"{device.name}  [{device.host_api}, {device.rate_hz} Hz]{mark}"


def _camera_line(camera: CameraDevice) -> str:
    state = "ready" if camera.problem is None else sentence(camera.problem)
    return f"{camera.label}  [{camera.device}, {camera.backend}]  {state}"
