"""`standin render`: what it says and returns; the clip itself is judged elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from engine import cli
from engine.commands import render
from engine.errors import Cancelled
from engine.stream import offline


@pytest.fixture
def standin(tmp_path, grey_generator, capsys, monkeypatch):
    """Runs `standin render` of half a second of tone: (exit status, standard output, standard error)."""
    monkeypatch.setattr(cli, "set_up_logging", lambda **_: None)
    monkeypatch.setattr(offline, "create_generator", grey_generator)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "p.png")
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000) / 10), 16_000)

    def run(*arguments, portrait=tmp_path / "p.png", audio=tmp_path / "a.wav"):
        common = ["render", "--portrait", portrait, "--audio", audio, "--canvas", "640x360"]
        status = cli.main([str(a) for a in (*common, "--out", tmp_path / "o.mp4", *arguments)])
        out, error = capsys.readouterr()
        return status, out, error

    return run


def test_says_what_it_made(standin, tmp_path):
    status, out, error = standin()
    assert status == 0 and out.startswith(f"{tmp_path / 'o.mp4'}: 0.5 seconds, made in ")
    assert "100 %" in error


def test_json_alone_on_standard_output(standin, tmp_path):
    status, out, error = standin("--json")
    made = json.loads(out)
    assert status == 0 and error == ""
    assert made["path"] == str(tmp_path / "o.mp4") and made["is_complete"] and made["notices"] == []
    assert made["frames"] in (12, 13) and made["duration_s"] == pytest.approx(0.5, abs=0.05)


def test_notices_of_the_sound_are_told(standin, tmp_path):
    soundfile.write(tmp_path / "s.wav", np.zeros(8000), 16_000)
    status, out, _ = standin(audio=tmp_path / "s.wav")
    assert status == 0 and "Note: s.wav is silent" in out
    _, out, _ = standin("--json", "--force", audio=tmp_path / "s.wav")
    assert [notice["code"] for notice in json.loads(out)["notices"]] == ["audio_file.silent"]


@pytest.mark.parametrize("as_json", [False, True])
def test_interrupted_clip_is_status_1_and_told(standin, monkeypatch, as_json):
    real = render.ProgressLine

    class Impatient(real):
        def update(self, stage, done, total, unit=""):
            if done >= 5:
                raise Cancelled("Stopped.")

    monkeypatch.setattr(render, "ProgressLine", Impatient)
    status, out, _ = standin(*(["--json"] if as_json else []))
    assert status == 1
    assert json.loads(out)["is_complete"] is False if as_json else out.startswith("Stopped. The first 0.2 seconds")


def test_wrong_options_are_told_before_anything_is_opened(standin, tmp_path):
    status, _, error = standin("--canvas", "7x7", portrait=tmp_path / "none.png")
    assert status == 2 and "standin: A canvas of 7x7" in error


def test_failures_in_json_too(standin, tmp_path):
    status, out, error = standin("--json", portrait=tmp_path / "none.png")
    assert status == 1 and json.loads(out)["error"]["code"] == "portrait.missing" and "no picture at" in error
