"""The examination as a whole: everything at once, nothing that hangs or fails ends it, and once for real."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from engine import doctor
from engine.diagnosis.system import System
from engine.errors import DeviceError
from engine.protocol.messages import AudioDevice, CameraDevice, DevicesListed

MICROPHONE = AudioDevice(name="Blue Yeti", host_api="ALSA", channels=1, rate_hz=48_000)
CAMERA = CameraDevice(device="/dev/video42", label="Standin Camera", backend="v4l2")
_TIMEOUT_S = 60.0
"""Where nothing hangs, a busy computer is no finding."""


def _system(**answers) -> System:
    devices = DevicesListed(microphones=[MICROPHONE], voice_outs=[MICROPHONE], cameras=[CAMERA])
    return System(**{"devices": lambda: devices, "listen": lambda: -20.0} | answers)


def _examined(**answers):
    return doctor.examine(_system(**answers), gpus=list, language="en", timeout_s=_TIMEOUT_S)


def test_everything_is_examined():
    names = {finding.name for finding in _examined()}
    assert names >= {"Python", "window", "microphone", "voice out", "virtual microphone", "camera", "face models",
                     "samples", "recording", "disk"}  # fmt: skip


def test_devices_are_asked_for_once():
    asked = []

    def devices():
        asked.append(1)
        return DevicesListed(microphones=[MICROPHONE], voice_outs=[], cameras=[])

    _examined(devices=devices)
    assert len(asked) == 1


def test_probe_that_fails_is_a_finding_and_the_others_go_on():
    def broken():
        raise DeviceError("The sound system is dead.", code="audio.dead", hint="Restart it.")

    findings = _examined(devices=broken)
    assert {f.name for f in findings if f.code == "audio.dead"} == {
        "microphone", "voice out", "virtual microphone", "camera"
    }  # fmt: skip
    assert any(f.name == "disk" and f.state == "good" for f in findings)


def test_bug_in_a_probe_does_not_end_the_examination(caplog):
    findings = _examined(free_bytes=lambda path: 1 / 0)
    assert {f.code for f in findings if f.name == "disk"} == {"doctor.failed"}
    assert any(f.name == "Python" and f.state == "good" for f in findings) and "ZeroDivisionError" in caplog.text


def _when_others_have_ended(name: str):
    """A clock that stands still until no probe but this one runs any more, and then jumps."""
    times_s = [0.0]

    def monotonic() -> float:
        if times_s:
            return times_s.pop()
        for thread in threading.enumerate():
            if thread.name.startswith("doctor ") and thread.name != f"doctor {name}":
                thread.join(_TIMEOUT_S)
        return 3600.0

    return SimpleNamespace(monotonic=monotonic)


def test_probe_that_hangs_is_told_and_left_alone(monkeypatch):
    monkeypatch.setattr(doctor, "time", _when_others_have_ended("microphone"))
    gate = threading.Event()
    try:
        findings = doctor.examine(_system(listen=gate.wait), gpus=list, language="en", timeout_s=1.0)
    finally:
        gate.set()
    (microphone,) = [f for f in findings if f.name == "microphone"]
    assert microphone.code == "doctor.timeout" and "1 s" in microphone.message
    assert any(f.name == "voice out" and f.state == "good" for f in findings)


def test_probes_run_at_once():
    """Two that wait for each other both end: one after the other they never would."""
    both = threading.Barrier(2, timeout=30.0)
    findings = doctor.examine(
        _system(listen=lambda: (both.wait() and -20.0) or -20.0), gpus=lambda: (both.wait() and []) or [],
        language="en", timeout_s=_TIMEOUT_S,
    )  # fmt: skip
    assert not [f for f in findings if f.code.startswith("doctor.")]


def test_another_language_is_english_where_it_has_no_words(monkeypatch):
    from engine.diagnosis import catalogue

    english = catalogue._texts("en")
    german = {"disk.low": {"title": "Wenig Platz", "message": "Nur {free} frei.", "action": "Platz schaffen."}}
    monkeypatch.setattr(catalogue, "_texts", lambda language: english if language == "en" else german)
    findings = doctor.examine(_system(free_bytes=lambda path: 100 << 20), gpus=list, language="de")
    (disk,) = [f for f in findings if f.name == "disk"]
    assert (disk.title, disk.message, disk.state) == ("Wenig Platz", "Nur 100 MB frei.", "limited")
    assert any(f.message == "The sample portraits are there." for f in findings)


def test_gpu_is_found_but_nothing_depends_on_it(machine_path):
    machine_path("driver_down")
    (gpu,) = [finding for finding in doctor.examine(_system(), language="en") if finding.name == "GPU"]
    assert gpu.state == "limited" and gpu.code == "gpu.driver_not_running" and gpu.hint


def test_this_computer_for_real():
    """Whatever it lacks has a code, a sentence and something to do; nothing fails or hangs."""
    findings = doctor.examine(timeout_s=30.0)
    assert findings and not [f for f in findings if f.code.startswith("doctor.")]
    for finding in findings:
        assert finding.message.endswith((".", ":")) or finding.state == "good"
        assert finding.state == "good" or (finding.code and finding.hint)
    assert next(f for f in findings if f.name == "Python").state == "good"


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_system_can_be_examined_anywhere(platform):
    findings = doctor.examine(_system(platform=platform), gpus=list, language="en")
    assert not [f for f in findings if f.code.startswith("doctor.")]
