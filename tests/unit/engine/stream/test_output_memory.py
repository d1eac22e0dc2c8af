"""What a slow output needed is left room for the next time."""

from __future__ import annotations

import logging

import pytest

from engine.stream import output_memory
from engine.stream.output_memory import USUAL_S, delay_for, recall, remember


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Measurements are kept in an empty folder."""
    monkeypatch.setattr(output_memory, "cache_folder", lambda: tmp_path)
    return tmp_path


def test_unknown_output_is_a_usual_one():
    assert recall("Headset") == USUAL_S
    assert delay_for("Headset", 0.0) == pytest.approx(0.130) == delay_for("Headset", 0.040)
    assert delay_for("Headset", -0.200) == pytest.approx(0.330), "who plays sooner must have waited longer"


@pytest.mark.parametrize("correction_s", [-0.100, 0.0, 0.050])
def test_next_session_has_the_delay_that_was_needed(correction_s):
    remember("Headset", 0.400, correction_s)
    assert delay_for("Headset", correction_s) >= 0.400
    assert delay_for("Headset", 0.0) == pytest.approx(0.410 + correction_s)
    assert recall("Loudspeakers") == USUAL_S


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Headset": "x"}', '{"Headset": 4000}', '{"Headset": null}'])
def test_damaged_memory_is_none(folder, text):
    (folder / "outputs.json").write_text(text)
    assert recall("Headset") == USUAL_S
    remember("Headset", 0.4, 0.0)
    assert recall("Headset") > 0.3


def test_folder_that_cannot_be_written_is_logged(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        remember("Headset", 0.4, 0.0, tmp_path / "file")
    assert "sound output" in caplog.text and recall("Headset", tmp_path / "file") == USUAL_S
