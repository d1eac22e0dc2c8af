"""The `standin` command as a person types it: what comes out, what it says, how it exits."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from engine.assets import asset_path

SAMPLE = str(asset_path("portraits/maya.png"))


def _standin(*arguments, timeout=90, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def _one_sentence(done: subprocess.CompletedProcess, status: int = 1) -> str:
    """The explanation of a failure: one line, no traceback, the right exit status."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("standin: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def speech(tmp_path) -> Path:
    t = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 150 * n * t) / n for n in range(1, 20)) * (t % 0.5 < 0.3)
    soundfile.write(tmp_path / "speech.wav", (0.1 * voice).astype(np.float32), 16_000)
    return tmp_path / "speech.wav"


def test_help_explains_every_command():
    done = _standin("--help")
    assert done.returncode == 0
    for command in ("render", "live", "demo", "devices", "doctor", "bench"):
        assert command in done.stdout
        detail = _standin(command, "--help")
        assert detail.returncode == 0 and "usage: standin" in detail.stdout
    assert "examples:" in done.stdout


def test_wrong_usage_exits_with_2(speech, tmp_path):
    assert _standin("rendr").returncode == 2
    assert _standin("render", "--portrait", SAMPLE).returncode == 2
    arguments = ("render", "--portrait", SAMPLE, "--audio", speech, "--out", tmp_path / "o.mp4")
    assert "1280x720" in _one_sentence(_standin(*arguments, "--canvas", "1000x1000"), 2)
    assert "KEY=VALUE" in _one_sentence(_standin(*arguments, "--set", "nonsense"), 2)
    assert "no option" in _one_sentence(_standin(*arguments, "--set", "wings=2"), 2)
    assert not (tmp_path / "o.mp4").exists()


def test_render_is_deterministic_and_probes_well(speech, tmp_path):
    frames = []
    for name in ("a.mp4", "b.mp4"):
        done = _standin(
            "render", "--portrait", SAMPLE, "--audio", speech, "--out", tmp_path / name, "--canvas", "640x360", "--json"
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["frames"] == 25
        with av.open(str(tmp_path / name)) as file:
            frames.append(np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]))
    assert frames[0].shape == (25, 360, 640, 3) and np.array_equal(*frames)
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,duration", "-of", "csv=p=0"]
        done = subprocess.run([*command, tmp_path / "a.mp4"], capture_output=True, text=True, check=True)
        assert {line.split(",")[0] for line in done.stdout.split()} == {"h264", "aac"} and not done.stderr


def test_render_at_thirty_frames_mirrored_and_cropped(speech, tmp_path):
    arguments = ("render", "--portrait", SAMPLE, "--audio", speech, "--out", tmp_path / "o.mp4", "--canvas", "640x360")
    done = _standin(*arguments, "--fps", 30, "--fill", "crop", "--mirror", "--json")
    assert json.loads(done.stdout)["frames"] == 30


def test_existing_clip_is_kept_unless_forced(speech, tmp_path):
    target = tmp_path / "o.mp4"
    target.write_bytes(b"precious")
    arguments = ("render", "--portrait", SAMPLE, "--audio", speech, "--out", target, "--canvas", "640x360")
    assert "exists already" in _one_sentence(_standin(*arguments))
    assert target.read_bytes() == b"precious"
    assert _standin(*arguments, "--force").returncode == 0 and target.stat().st_size > 1000


def test_bad_portraits_and_sounds_are_one_sentence(speech, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "zero.wav").touch()
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for portrait, audio, words in (
        (tmp_path / "none.png", speech, "no picture at"),
        (tmp_path / "text.png", speech, "not a picture"),
        (tmp_path / "dot.png", speech, "1 x 1"),
        (SAMPLE, tmp_path / "none.wav", "no sound file at"),
        (SAMPLE, tmp_path / "zero.wav", "empty"),
        (SAMPLE, tmp_path / "text.png", "not a sound file"),
    ):
        done = _standin("render", "--portrait", portrait, "--audio", audio, "--out", tmp_path / "o.mp4")
        assert words in _one_sentence(done)
        assert not (tmp_path / "o.mp4").exists()


def test_picture_without_a_face_still_renders_and_says_what_to_do(speech, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(tmp_path / "noise.png")
    done = _standin(
        "render", "--portrait", tmp_path / "noise.png", "--audio", speech, "--out", tmp_path / "o.mp4", "--json"
    )
    assert done.returncode == 0, done.stderr
    codes = [notice["code"] for notice in json.loads(done.stdout)["notices"]]
    assert any(code in ("portrait.no_face", "portrait.no_face_models") for code in codes)


def test_interrupted_render_leaves_a_complete_clip(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 120, np.float32), 16_000)
    command = [sys.executable, "-m", "engine", "render", "--portrait", SAMPLE, "--audio", str(tmp_path / "long.wav")]
    child = subprocess.Popen(
        [*command, "--out", str(tmp_path / "o.mp4"), "--canvas", "640x360"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "o.mp4").exists() or (tmp_path / "o.mp4").stat().st_size < 50_000:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=30)
    assert child.returncode == 1 and "Stopped" in out and "Traceback" not in error
    with av.open(str(tmp_path / "o.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) > 10


@pytest.mark.serial
def test_live_from_a_file_ends_by_itself(speech, tmp_path):
    done = _standin(
        "live", "--portrait", SAMPLE, "--audio", speech, "--no-camera", "--record", tmp_path / "o.mp4",
        "--stats", tmp_path / "s.json", "--canvas", "640x360",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "s.json").read_text())
    lost = stats["sinks"]["recorder"]["dropped"]
    made = stats["presented"] + stats["dropped"] + stats["skipped_samples"] // 640
    assert stats["presented"] > 0 and made >= 25, "a second of speech, in time or not"
    assert abs(stats["latency_ms"] - stats["delay_ms"]) < 40, "within a frame of what was promised"
    with av.open(str(tmp_path / "o.mp4")) as file:
        times_s = [frame.time for frame in file.decode(video=0)]
    # The figures are taken just before the end.
    assert 0 <= len(times_s) - (stats["presented"] + stats["held"] - lost) <= 25
    assert times_s[0] == 0 and times_s == sorted(set(times_s))


def test_live_says_why_it_cannot(speech, tmp_path):
    common = ("live", "--portrait", SAMPLE, "--audio", speech)
    message = _one_sentence(_standin(*common, "--camera", "/dev/video98"))
    assert "camera" in message
    assert "no time" in _one_sentence(_standin(*common, "--no-camera", "--seconds", "-1"), 2)
    assert "does not exist" in _one_sentence(_standin(*common, "--no-camera", "--record", tmp_path / "no" / "o.mp4"))


def test_devices_and_doctor_speak_json():
    done = _standin("devices", "--json")
    assert done.returncode == 0 and {"microphones", "voice_outs", "cameras"} <= set(json.loads(done.stdout))
    findings = json.loads(_standin("doctor", "--json").stdout)
    assert {"Python", "recording", "disk", "camera"} <= {finding["name"] for finding in findings}
    for finding in findings:
        assert finding["state"] in ("good", "limited", "bad") and finding["message"].endswith(".")
        assert finding["state"] == "good" or finding["hint"]
    plain = _standin("doctor")
    assert plain.returncode == (1 if any(f["state"] == "bad" for f in findings) else 0)


def test_bench_reports_every_stage():
    report = json.loads(_standin("bench", "--frames", 5, "--json").stdout)
    assert {"puppet 512x512", "puppet 1280x720", "canvas 1280x720"} <= set(report["figures_ms"])


def test_demo_makes_a_clip_and_says_what_next(speech, tmp_path):
    done = _standin("demo", "--out", tmp_path / "demo.mp4", "--audio", speech)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "demo.mp4") in done.stdout and "What to do next" in done.stdout
    assert (tmp_path / "demo.mp4").stat().st_size > 10_000
