"""What a session does not do: listen, or tell its log what is seen, heard, secret or asked for."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hf_a1SecretThatMustNotBeTold"
PROMPT = "a person with a very private reason to be described"


@pytest.fixture
def engine(tmp_path):
    """`standin --verbose serve` with a token in its environment; its standard error goes to a file."""
    names = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    environment = {**os.environ, **dict.fromkeys(names, str(tmp_path)), "PYTHONPATH": str(ROOT)}
    environment |= {"HF_TOKEN": SECRET, "HUGGING_FACE_HUB_TOKEN": SECRET}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "--verbose", "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=tmp_path, env=environment,
        )  # fmt: skip
    watchdog = threading.Timer(90.0, process.kill)
    watchdog.start()
    yield process
    process.kill()
    process.wait()
    watchdog.cancel()
    process.stdin.close()
    process.stdout.close()


def _ask(process, **command) -> dict:
    """The reply."""
    process.stdin.write(json.dumps(command).encode() + b"\n")
    process.stdin.flush()
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "reply" and event["id"] == command["id"]:
            return event
    raise AssertionError("the engine has ended")


def _settings(tmp_path: Path) -> dict:
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "me.png")
    return {
        "portrait": str(tmp_path / "me.png"),
        "source": {"type": "file", "path": str(ROOT / "assets" / "speech" / "welcome.flac"), "is_looped": True},
        "canvas": {"width": 640, "height": 360},
        "has_preview": True,
        "recording": str(tmp_path / "clip.mp4"),
    }


def _listening(process) -> list[str]:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    doors = [door for one in family for door in one.net_connections(kind="inet")]
    return [str(door.laddr) for door in doors if door.status == psutil.CONN_LISTEN or door.type != 1]


def test_a_live_session_listens_nowhere_and_logs_nothing_private(engine, tmp_path):
    assert _ask(engine, type="start", id=1, settings=_settings(tmp_path))["error"] is None
    camera = _ask(engine, type="set_camera", id=2, camera={"device": "", "backend": ""})
    time.sleep(1.0)
    assert camera["type"] == "reply" and _listening(engine) == []
    refused = {**_settings(tmp_path), "generator": {"name": "flashtalk", "options": {"prompt": PROMPT, "x": SECRET}}}
    for number, command in enumerate(
        (
            {"type": "stop"},
            {"type": "start", "settings": {**refused, "recording": ""}},
            {"type": "start", "settings": {**refused, "fps": 26}},
            {"type": "set_portrait", "portrait": 5, "token": SECRET},
        )
    ):
        _ask(engine, id=10 + number, **command)
    engine.stdin.close()
    engine.wait(20)
    written = sorted((tmp_path / "standin" / "log").iterdir())
    assert [path.name for path in written] == ["standin.log"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (*written, written[0].parent)] == [0o600, 0o700]
    assert b"session live" in written[0].read_bytes()
    log = b"".join(path.read_bytes() for path in (tmp_path / "log", *written))
    assert log.count(b"refused") >= 2, "the log was not written, so nothing is shown"
    picture = np.asarray(Image.open(tmp_path / "me.png"))
    for private in (SECRET.encode(), PROMPT.encode(), picture[0, :8].tobytes(), base64.b64encode(picture[0, :9])):
        assert private not in log


def test_a_home_of_nobody_is_a_missing_picture(engine):
    reply = _ask(engine, type="analyse_portrait", id=3, portrait="~nobody-of-that-name/x.png")
    assert reply["error"]["code"] == "portrait.missing"
