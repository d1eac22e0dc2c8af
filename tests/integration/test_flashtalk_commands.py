"""`standin render` and `standin live` with the photographic generator, from a complete tiny checkpoint on the CPU."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import soundfile

pytest.importorskip("torch", reason="the photographic generator needs torch")

from engine import cli

pytestmark = pytest.mark.usefixtures("home")

PATIENT = """
import sys
from engine import cli
from engine.worker import fate

fate._REASON_S = 20.0
sys.exit(cli.main())
"""
"""`standin` that tells the true reason on a busy machine, too."""


def _speech(path: Path, seconds: float) -> Path:
    t = np.arange(round(seconds * 16_000)) / 16_000
    voice = sum(np.sin(2 * np.pi * 150 * n * t) / n for n in range(1, 20)) * (t % 0.5 < 0.3)
    soundfile.write(path, (0.1 * voice).astype(np.float32), 16_000)
    return path


@pytest.fixture
def picture_options(tiny_checkpoint) -> list[str]:
    return [
        "--generator", "flashtalk", "--checkpoint", str(tiny_checkpoint[0]), "--size", "32x32", "--steps", "2",
        "--device", "cpu", "--portrait", "sample:maya", "--canvas", "640x360",
    ]  # fmt: skip


def _standin(*arguments) -> subprocess.CompletedProcess:
    """A process of its own, as a person starts it."""
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def _within(*arguments) -> subprocess.CompletedProcess:
    """The same within this process, which is quicker."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def _one_sentence(done: subprocess.CompletedProcess, status: int) -> str:
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("standin: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def _frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def _first_and_last(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        frames = file.decode(video=0)
        first = next(frames)
        last = deque(frames, maxlen=1).pop()
        return np.stack([frame.to_ndarray(format="rgb24") for frame in (first, last)])


def _probed(path: Path) -> dict[str, int]:
    """Frames that were really decoded, by codec."""
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    entries = "stream=codec_name,nb_read_frames"
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json", str(path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert not done.stderr
    return {stream["codec_name"]: int(stream["nb_read_frames"]) for stream in json.loads(done.stdout)["streams"]}


def test_render_makes_the_same_clip_twice(picture_options, tmp_path):
    """1.3 s are a whole chunk and a part of one, which ends with its sound. As a process, then within this one."""
    speech = _speech(tmp_path / "speech.wav", 1.3)
    clips = []
    for name, run in (("a.mp4", _standin), ("b.mp4", _within)):
        done = run("render", *picture_options, "--audio", speech, "--out", tmp_path / name, "--json")
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["is_complete"] and said["frames"] == 33
        assert [notice["code"] for notice in said["notices"]] == ["flashtalk.cpu"]
        clips.append(_frames(tmp_path / name))
    assert clips[0].shape == (33, 360, 640, 3) and np.array_equal(*clips)
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(clips[0], clips[0][1:], strict=False)]
    assert sum(change > 0.1 for change in changes) > 20  # it moves
    probed = _probed(tmp_path / "a.mp4")
    assert probed["h264"] == 33 and probed["aac"] > 10


@pytest.mark.timeout(400)
def test_live_in_two_ranks_shows_the_puppet_until_they_are_ready_and_while_they_come_back(picture_options, tmp_path):
    """One rank is killed as soon as the picture is live; ended by Ctrl-C when it is so again. The recording and the
    figures are complete then."""
    speech = _speech(tmp_path / "speech.wav", 240.0)
    recording, figures = tmp_path / "live.mp4", tmp_path / "stats.json"
    command = [sys.executable, "-c", PATIENT, "live", *picture_options, "--ranks", "2", "--audio", str(speech)]
    process = subprocess.Popen(
        [*command, "--no-camera", "--record", str(recording), "--stats", str(figures)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    guard = threading.Timer(300, process.kill)
    guard.start()
    told: list[str] = []
    try:
        for line in process.stdout:
            told.append(line.strip())
            if _lives(told) == [len(told) - 1]:
                _ranks_of(process)[1].kill()
            elif line.startswith("Live.") and _stands_in(told):
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        status = process.wait(30)
    finally:
        guard.cancel()
        process.kill()
        process.stdout.close()
        process.stderr.close()
    assert status == 1 and "Traceback" not in errors, errors
    first, last = _lives(told)[0], _lives(told)[-1]
    assert any("puppet is shown until flashtalk is ready" in line for line in told[:first])
    assert sum("was killed." in line for line in told) == 1, "one sentence"
    assert _stands_in(told[first:last]) and not _stands_in(told[:first]), told
    stats = json.loads(figures.read_text())
    assert stats["generator"] == "flashtalk" and stats["presented"] > 0 and stats["recoveries"] == 0
    assert _probed(recording)["h264"] >= stats["presented"] > 0
    # The puppet's picture and the photographic one are of different sizes on the canvas.
    frames = _first_and_last(recording)
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 1.0


def _lives(told: list[str]) -> list[int]:
    """Lines that say that the picture is live, which it is also after it was held for a moment."""
    return [number for number, line in enumerate(told) if line.startswith("Live.")]


def _stands_in(told: list[str]) -> bool:
    return any("puppet stands in" in line for line in told)


def _ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that compute."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("engine.worker.rank" in word for word in child.cmdline())]


@pytest.fixture
def tried(picture_options, tmp_path):
    """Tries a command with some options replaced, and says what came of it."""
    speech = _speech(tmp_path / "speech.wav", 0.4)

    def attempt(*replaced, command: str = "render", run=_within) -> subprocess.CompletedProcess:
        target = ["--out", tmp_path / "out.mp4"] if command == "render" else ["--no-camera"]
        # The last of an option that is given twice counts.
        done = run(command, *picture_options, "--audio", speech, *target, *replaced)
        assert not (tmp_path / "out.mp4").exists()
        return done

    return attempt


@pytest.mark.parametrize("command", ["render", "live"])
@pytest.mark.parametrize(
    ("replaced", "status", "said"),
    [
        (["--size", "100x100"], 2, "multiples of 16"),
        (["--size", "large"], 2, "768x448"),
        (["--fps", "30"], 2, "25 frames a second"),
        (["--steps", "7"], 2, "4, 3, 2 or auto"),
        (["--set", "color_match=2"], 2, "0 to 1"),
        (["--set", "wings=2"], 2, 'no option "wings"'),
        (["--device", "tpu9"], 2, "cuda:1 or cpu"),
        (["--checkpoint", "/nowhere/at/all"], 1, "/nowhere/at/all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_one_sentence(tried, command, replaced, status, said):
    assert said in _one_sentence(tried(*replaced, command=command), status)


def test_a_gpu_that_is_not_there_is_one_sentence(tried):
    assert "no CUDA device cuda:63" in _one_sentence(tried("--device", "cuda:63"), 1)


@pytest.mark.parametrize("command", ["render", "live"])
def test_a_folder_with_a_file_missing_is_one_sentence(tried, tiny_checkpoint, tmp_path, command):
    folder = shutil.copytree(tiny_checkpoint[0], tmp_path / "model")
    (folder / "Wan2.1_VAE.pth").unlink()
    said = _one_sentence(tried("--checkpoint", folder, command=command), 1)
    assert "Wan2.1_VAE.pth is missing" in said and "standin models download" in said


def test_a_folder_of_something_else_is_one_sentence(tried, tmp_path):
    said = _one_sentence(tried("--checkpoint", tmp_path), 1)
    assert "not the whole FlashTalk checkpoint" in said


def test_no_folder_at_all_says_how_to_get_the_model(tried):
    assert "standin models download" in _one_sentence(tried("--checkpoint", ""), 1)


def test_damaged_weights_are_one_sentence_in_a_process_of_their_own(tried, tiny_checkpoint, tmp_path):
    """Found only while loading: nothing before it looks inside."""
    folder = shutil.copytree(tiny_checkpoint[0], tmp_path / "model")
    shutil.copy(folder / "models_t5_umt5-xxl-enc-bf16.pth", folder / "Wan2.1_VAE.pth")
    speech = ["--speech-encoder", tiny_checkpoint[1]]
    said = _one_sentence(tried("--checkpoint", folder, *speech, run=_standin), 1)
    assert "Wan2.1_VAE.pth are not those of this model" in said and "missing (" in said


def test_the_puppet_has_no_checkpoint(tried):
    done = tried("--generator", "puppet")
    assert 'The generator puppet has no option "' in _one_sentence(done, 2)
