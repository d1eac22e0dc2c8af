"""`standin sync` on real devices: the virtual microphone, an output that a microphone hears, and one that none does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_TRIES = 4
"""On a machine that is busy with other things it refuses to say anything, rightly; then it is asked again."""


@pytest.fixture
def sync(sound_server, tmp_path):
    """Runs the command; its corrections are kept in an empty folder. "speaker" is heard through "fakemic"."""
    config = Path(sound_server.environment["ALSA_CONFIG_PATH"])
    speaker = 'pcm.speaker { type pulse device mic_feed hint { show on description "Speaker" } }\n'
    config.write_text(config.read_text() + speaker)

    def run(*words: str) -> tuple[int, dict]:
        environment = os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")}
        command = [sys.executable, "-m", "engine", "sync", "--json", *words]
        for _ in range(_TRIES):
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
            answer = json.loads(done.stdout)
            if answer.get("error", {}).get("code") != "sync.unsteady":
                break
        return done.returncode, answer

    return run


def test_virtual_microphone_is_in_sync_by_itself(sync):
    status, measured = sync()
    assert status == 0 and measured["heard"] >= 4 and measured["is_stored"]
    assert abs(measured["offset_ms"]) <= 40
    left = subprocess.run(["pactl", "list", "short", "modules"], capture_output=True, text=True, timeout=10, check=True)
    assert "standin" not in left.stdout


def test_loudspeaker_and_microphone(sync):
    status, measured = sync("--voice-out", "speaker", "--mic", "fakemic", "--no-store")
    assert status == 0 and measured["heard"] >= 4 and not measured["is_stored"]
    assert abs(measured["offset_ms"]) <= 90, "null sinks tell their delay to some tens of ms only"


def test_output_that_the_microphone_does_not_hear(sync):
    status, answer = sync("--voice-out", "fakeout", "--mic", "fakemic", "--seconds", "4")
    assert status == 1 and answer["error"]["code"] == "sync.not_heard"
    assert '"fakeout"' in answer["error"]["message"] and '"fakemic"' in answer["error"]["message"]
    assert "silence" in answer["error"]["hint"]
