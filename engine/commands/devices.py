"""`standin devices`: microphones, sound outputs, virtual cameras and GPUs, as the other commands call them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import msgspec

from engine.commands.console import listing, notice, sentence
from engine.gpus.links import link_lines
from engine.gpus.listing import find_gpus
from engine.gpus.types import Gpu, GpusFound
from engine.protocol.messages import AudioDevice, CameraDevice, Reason, plain
from engine.server import list_devices


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "devices",
        help="list microphones, sound outputs, virtual cameras and GPUs",
        description="Where sound and picture can come from and go to, what computes, and why something cannot be used.",
    )
    parser.add_argument("--json", action="store_true", help="print the lists as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List; an empty list is no failure."""
    found = list_devices()
    if arguments.json:
        print(json.dumps({**plain(found), **_plain_gpus(find_gpus())}, indent=2))
        return 0
    print(_audio_list("Microphones", found.microphones, found.audio_reason, "No microphone is connected."), end="\n\n")
    print(
        _audio_list("Sound outputs", found.voice_outs, found.audio_reason, "No sound output is connected."), end="\n\n"
    )
    virtual = [f"{found.virtual_microphone}  [--voice-out virtual]"] if found.virtual_microphone else []
    reason = found.virtual_microphone_reason
    print(listing("Virtual microphone", virtual, sentence(reason) if reason else "None."), end="\n\n")
    cameras = [_camera_line(camera) for camera in found.cameras]
    if found.cameras_reason is not None:
        cameras.append(sentence(found.cameras_reason))
    print(listing("Virtual cameras", cameras), end="\n\n")
    gpus = find_gpus()
    print(listing("GPUs", _gpu_lines(gpus), sentence(gpus.problem) if gpus.problem else ""))
    for note in gpus.notes:
        print(notice(note))
    return 0


def _audio_list(title: str, devices: list[AudioDevice], reason: Reason | None, empty: str) -> str:
    return listing(title, [_audio_line(device) for device in devices], sentence(reason) if reason else empty)


def _audio_line(device: AudioDevice) -> str:
    mark = "  (default)" if device.is_default else ""
    return f"{device.name}  [{device.host_api}, {device.rate_hz} Hz]{mark}"


def _camera_line(camera: CameraDevice) -> str:
    state = "ready" if camera.problem is None else sentence(camera.problem)
    if camera.note is not None:
        state = f"{state}. {sentence(camera.note)}"
    return f"{camera.label}  [{camera.device}, {camera.backend}]  {state}"


def _gpu_lines(found: GpusFound) -> list[str]:
    return [*map(_gpu_line, found.gpus), *link_lines(found.gpus)]


def _gpu_line(gpu: Gpu) -> str:
    facts = []
    if gpu.total_bytes is not None:
        free = "?" if gpu.free_bytes is None else f"{gpu.free_bytes / 1e9:.1f}"
        facts.append(f"{free} of {gpu.total_bytes / 1e9:.1f} GB free")
    if gpu.compute_capability is not None:
        facts.append("compute capability {}.{}".format(*gpu.compute_capability))
    facts.append(f"driver {gpu.driver}")
    if gpu.index != gpu.system_index:
        facts.append(f"{gpu.system_index} of nvidia-smi")
    if gpu.is_split:
        facts.append(f"split by MIG: {', '.join(part.profile for part in gpu.parts) or 'no part'}")
    users = ", ".join(f"{process.name} ({process.pid})" for process in gpu.processes[:3])
    return f"{gpu.index}: {gpu.name}  [{', '.join(facts)}]" + (f"  used by {users}" if users else "")


def _plain_gpus(found: GpusFound) -> dict:
    return {
        "gpus": [asdict(gpu) for gpu in found.gpus],
        "gpus_reason": msgspec.to_builtins(found.problem),
        "gpus_notes": msgspec.to_builtins(found.notes),
    }
