"""Windows and macOS: each answer of the system and the sentence that it leads to."""

from __future__ import annotations

import pytest

from engine.camera.other_devices import Answers, list_other_cameras

EXTENSION = "com.obsproject.obs-studio.mac-camera-extension (1.0/1)"


def _windows(*, obs=True, unity=False, mapping=False) -> Answers:
    return Answers(
        platform="win32",
        has_registry_key=lambda key: obs if "A3FCE0F5" in key else unity,
        has_mapping=lambda name: mapping,
        extensions=lambda: "",
    )


def _macos(text: str) -> Answers:
    return Answers(
        platform="darwin", has_registry_key=lambda key: False, has_mapping=lambda name: False, extensions=lambda: text
    )


def test_windows_with_obs_is_ready():
    cameras, reason = list_other_cameras(_windows())
    assert reason is None and cameras[0].label == "OBS Virtual Camera"


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        (_windows(obs=False), "camera.no_driver", "Install OBS Studio"),
        (_windows(mapping=True), "camera.busy", "Stop Virtual Camera"),
        (_macos(""), "camera.no_driver", "allow the extension"),
        (_macos(f"*\t\t{EXTENSION}\t[activated waiting for user]"), "camera.not_allowed", "Allow"),
        (_macos(f"*\t\t{EXTENSION}\t[terminated waiting to uninstall on reboot]"), "camera.not_loaded", "restart"),
    ],
)
def test_every_trouble_has_its_cause_and_action(answers, code, words):
    _, reason = list_other_cameras(answers)
    assert reason.code == code and words in reason.hint


def test_macos_enabled_extension_is_ready():
    assert list_other_cameras(_macos(f"*\t*\tX\t{EXTENSION}\t[activated enabled]"))[1] is None


def test_unity_capture_helps_where_obs_is_busy():
    cameras, reason = list_other_cameras(_windows(mapping=True, unity=True))
    assert reason is None and [camera.problem is None for camera in cameras] == [False, True]
