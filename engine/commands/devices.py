"""`standin devices`: microphones, sound outputs and virtual cameras, by the names that the other commands take."""

from __future__ import annotations

import argparse
import json

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
    _print_audio("Microphones", found.microphones, found.audio_reason, "No microphone is connected.")
    _print_audio("Sound outputs", found.voice_outs, found.audio_reason, "No sound output is connected.")
    print("Virtual cameras")
    for camera in found.cameras:
        print(f"  {_camera_line(camera)}")
    if found.cameras_reason is not None:
        print(f"  {_sentence(found.cameras_reason)}")
    return 0


def _print_audio(title: str, devices: list[AudioDevice], reason: Reason | None, empty: str) -> None:
    print(title)
    for device in devices:
        mark = "  (default)" if device.is_default else ""
        print(f"  {device.name}  [{device.host_api}, {device.rate_hz} Hz]{mark}")
    if not devices:
        print(f"  {_sentence(reason) if reason is not None else empty}")
    print()


def _camera_line(camera: CameraDevice) -> str:
    state = "ready" if camera.problem is None else _sentence(camera.problem)
    return f"{camera.label}  [{camera.device}, {camera.backend}]  {state}"


def _sentence(reason: Reason) -> str:
    return f"{reason.message} {reason.hint}".strip()
