"""The doctor's findings for good and bad machines."""

from __future__ import annotations

import pytest

from engine import doctor
from engine.errors import DeviceError
from engine.protocol.messages import AudioDevice, CameraDevice, DevicesListed, Reason

MICROPHONE = AudioDevice(name="Blue Yeti", host_api="ALSA", channels=1, rate_hz=48_000)
CAMERA = CameraDevice(device="OBS Virtual Camera", label="OBS Virtual Camera", backend="pyvirtualcam:obs")
NO_DRIVER = Reason(code="camera.no_driver", message="No virtual camera driver is installed.", hint="Install it.")


def _devices(**changes) -> DevicesListed:
    return DevicesListed(**{"microphones": [MICROPHONE], "voice_outs": [MICROPHONE], "cameras": [CAMERA]} | changes)


def _states(devices) -> dict[str, str]:
    return {finding.name: finding.state for finding in doctor.examine(lambda: devices)}


def test_good_machine():
    states = _states(_devices())
    assert states["microphone"] == states["voice out"] == states["camera"] == states["recording"] == "good"


def test_each_missing_device_is_found():
    states = _states(_devices(microphones=[], cameras=[], cameras_reason=NO_DRIVER))
    assert states["microphone"] == states["camera"] == "bad" and states["voice out"] == "good"


def test_missing_portaudio_is_told_for_both_sounds():
    reason = Reason(code="audio.no_portaudio", message="The sound library PortAudio is not installed.", hint="apt")
    findings = doctor.examine(lambda: _devices(microphones=[], voice_outs=[], audio_reason=reason))
    assert sum(finding.code == "audio.no_portaudio" for finding in findings) == 2


def test_probe_that_fails_is_a_finding_and_the_others_go_on():
    def broken():
        raise DeviceError("The sound system does not answer.", code="audio.dead", hint="Restart it.")

    findings = doctor.examine(broken)
    assert [f.code for f in findings if f.name == "sound and camera"] == ["audio.dead"]
    assert any(f.name == "disk" for f in findings)


def test_bug_in_a_probe_does_not_end_the_examination(monkeypatch):
    monkeypatch.setattr(doctor, "_disk", lambda: 1 / 0)
    assert any(f.code == "doctor.failed" for f in doctor.examine(_devices))


@pytest.mark.parametrize(("free", "state"), [(10 << 20, "limited"), (10 << 30, "good")])
def test_low_disk(monkeypatch, free, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free})())
    assert _states(_devices())["disk"] == state


def test_missing_window_and_models(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr("engine.generators.puppet.models.find_face_models", lambda: None)
    states = _states(_devices())
    assert states["window"] == states["face models"] == "limited"


def test_gpu_is_found_but_nothing_depends_on_it(machine_path):
    machine_path("driver_down")
    (gpu,) = [finding for finding in doctor.examine(_devices) if finding.name == "GPU"]
    assert gpu.state == "limited" and gpu.code == "gpu.driver_not_running" and gpu.hint
