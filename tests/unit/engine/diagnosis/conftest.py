"""A computer on which everything works, and any answer of it replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.assets import asset_path
from engine.camera.linux_devices import LinuxSystem
from engine.diagnosis.system import Ran, System
from engine.protocol.messages import AudioDevice, CameraDevice, DevicesListed

MICROPHONE = AudioDevice(name="Blue Yeti", host_api="ALSA", channels=1, rate_hz=48_000, is_default=True)
SPEAKERS = AudioDevice(name="Speakers", host_api="ALSA", channels=2, rate_hz=48_000)
CABLES = {
    "win32": AudioDevice(name="CABLE Input (VB-Audio)", host_api="Windows WASAPI", channels=2, rate_hz=48_000),
    "darwin": AudioDevice(name="BlackHole 2ch", host_api="Core Audio", channels=2, rate_hz=48_000),
}
CAMERAS = {
    "linux": CameraDevice(device="/dev/video42", label="Standin Camera", backend="v4l2"),
    "win32": CameraDevice(device="OBS Virtual Camera", label="OBS Virtual Camera", backend="pyvirtualcam:obs"),
    "darwin": CameraDevice(device="OBS Virtual Camera", label="OBS Virtual Camera", backend="pyvirtualcam:obs"),
}


class Computer:
    """Answers of a good one; `but` makes another with some replaced, `commands` replaces answers of programs."""

    def __init__(self, platform, tmp_path):
        self.platform, self.folder = platform, tmp_path
        outputs = [SPEAKERS, *([CABLES[platform]] if platform in CABLES else [])]
        self.devices = DevicesListed(microphones=[MICROPHONE], voice_outs=outputs, cameras=[CAMERAS[platform]])
        self.commands = {
            "pactl list": Ran(status=0, output="7\tmodule-null-sink\tsink_name=x\n"),
            "pactl info": Ran(status=0, output="Server Name: pulseaudio\n"),
            "modinfo v4l2loopback": Ran(status=0, output="filename: x\nversion: 0.15.3\n"),
            "modinfo -F": Ran(status=0, output="DKMS module signing key\n"),
            "mokutil --sb-state": Ran(status=0, output="SecureBoot disabled\n"),
            "dkms status": Ran(status=None),
            "journalctl -k": Ran(status=0, output=""),
        }
        self.files = {"/sys/module/v4l2loopback/version": "0.15.3", "/etc/os-release": "ID=debian\n"}
        self.there = {"/sys/module/v4l2loopback", "/dev/shm"}
        self.sources = []
        linux = LinuxSystem(sys=tmp_path / "sys", dev=tmp_path / "dev", proc=tmp_path / "proc", modules=tmp_path)
        self.system = System(
            platform=platform, kernel="6.1.0-30-amd64", environment={"DISPLAY": ":0"}, python=(3, 12, 1),
            run=self.run, read=self.files.get, exists=self.exists, list_folder=lambda path: self.sources,
            is_writable=lambda path: True, free_bytes=lambda path: 500_000_000_000,
            has_package=lambda name: True, package_version=lambda name: "5.0" if name.endswith("headless") else "",
            has_registry_key=lambda key: True, devices=lambda: self.devices, listen=lambda: -23.4, linux=linux,
            has_real_time=lambda: True,
        )  # fmt: skip

    def run(self, command):
        for start, answer in self.commands.items():
            if " ".join(command).startswith(start):
                return answer
        raise AssertionError(f"nobody expected {command}")

    def exists(self, path):
        is_ours = str(path).startswith((str(self.folder), str(asset_path("portraits"))))
        return str(path) in self.there or (is_ours and Path(path).exists())

    def listed(self, **changes):
        listed = {"microphones": self.devices.microphones, "voice_outs": self.devices.voice_outs,
                  "cameras": self.devices.cameras}  # fmt: skip
        self.devices = DevicesListed(**listed | changes)

    def but(self, **answers):
        self.system = dataclasses.replace(self.system, **answers)


@pytest.fixture
def computer(tmp_path):
    """From a platform to a good computer."""
    return lambda platform="linux": Computer(platform, tmp_path)
