"""`standin devices` prints what there is, and why something is not."""

from __future__ import annotations

import argparse
import json

import pytest

from engine.commands import devices
from engine.protocol.messages import AudioDevice, CameraDevice, DevicesListed, Reason

YETI = AudioDevice(name="Blue Yeti", host_api="ALSA", channels=2, rate_hz=48_000, is_default=True)
OUT = AudioDevice(name="Speakers", host_api="ALSA", channels=2, rate_hz=44_100)
READY = CameraDevice(device="/dev/video42", label="Standin Camera", backend="v4l2")
TAKEN = CameraDevice(
    device="/dev/video43",
    label="Other",
    backend="v4l2",
    problem=Reason(code="camera.busy", message="It is in use.", hint="Close it."),
)


@pytest.fixture
def printed(monkeypatch, capsys, gpus_of):
    """What the command prints for a list of devices and the GPUs of a machine."""

    def run(as_json=False, machine="laptop4070", visible=None, **found):
        monkeypatch.setattr(devices, "find_gpus", lambda: gpus_of(machine, visible))
        listed = DevicesListed(**{"microphones": [], "voice_outs": [], "cameras": [], **found})
        monkeypatch.setattr(devices, "list_devices", lambda: listed)
        assert devices.run(argparse.Namespace(json=as_json)) == 0
        return capsys.readouterr().out

    return run


def test_everything_there(printed):
    listed = printed(microphones=[YETI], voice_outs=[OUT], cameras=[READY, TAKEN], virtual_microphone="BlackHole 2ch")
    assert listed.splitlines() == [
        "Microphones",
        "  Blue Yeti  [ALSA, 48000 Hz]  (default)",
        "",
        "Sound outputs",
        "  Speakers  [ALSA, 44100 Hz]",
        "",
        "Virtual microphone",
        "  BlackHole 2ch  [--voice-out virtual]",
        "",
        "Virtual cameras",
        "  Standin Camera  [/dev/video42, v4l2]  ready",
        "  Other  [/dev/video43, v4l2]  It is in use. Close it.",
        "",
        "GPUs",
        "  0: NVIDIA GeForce RTX 4070 Laptop GPU  [7.2 of 8.6 GB free, compute capability 8.9, driver 566.36]"
        "  used by [Insufficient Permissions] (1712), obs64.exe (9044)",
    ]


def _gpus_in(text: str) -> list[str]:
    return text.split("GPUs\n")[1].splitlines()


def test_several_gpus_and_their_ways(printed):
    lines = _gpus_in(printed(machine="a100_bridged", visible="4,1,2"))
    assert lines[0].startswith("  0: NVIDIA A100 80GB PCIe  [85.0 of 85.9 GB free") and "4 of nvidia-smi" in lines[0]
    assert lines[1].startswith("  1: NVIDIA T400 4GB  [")
    assert lines[3] == "  between 0-2: NVLink (NV12)"
    assert lines[-1].startswith("Note: CUDA may number")


def test_split_gpu(printed):
    assert "split by MIG: 3g.40gb, 1g.10gb]" in _gpus_in(printed(machine="mig_h100"))[0]


def test_why_there_is_no_gpu(printed):
    assert _gpus_in(printed(machine="driver_down")) == [
        "  The NVIDIA driver is installed but not running. "
        "Install the driver again for the running kernel, then restart the computer."
    ]


def test_gpus_in_json(printed):
    found = json.loads(printed(as_json=True, machine="h100x8"))
    gpu = found["gpus"][3]
    assert gpu["name"] == "NVIDIA H100 80GB HBM3" and gpu["total_bytes"] == 81559 << 20
    assert gpu["compute_capability"] == [9, 0] and gpu["links"]["0"] == "NV18"
    assert gpu["processes"][0]["pid"] == 48213 and found["gpus_reason"] is None and found["gpus_notes"] == []
    assert json.loads(printed(as_json=True, machine="driver_down"))["gpus_reason"]["code"] == "gpu.driver_not_running"


def test_nothing_there_is_said_with_its_reason(printed):
    text = printed(
        audio_reason=Reason(code="a", message="No PortAudio.", hint="Install it."),
        cameras_reason=Reason(code="c", message="No driver."),
    )
    assert text.count("  No PortAudio. Install it.") == 2 and "  No driver." in text
    text = printed()
    assert "No microphone is connected." in text and "No sound output is connected." in text


def test_json_is_the_event(printed):
    found = json.loads(printed(as_json=True, cameras=[TAKEN]))
    assert found["cameras"][0]["problem"]["code"] == "camera.busy" and found["microphones"] == []
