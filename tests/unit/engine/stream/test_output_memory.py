"""What a slow output needed is left room for the next time, without looking at any device."""

from __future__ import annotations

import logging

import pytest

from engine.settings import VoiceOutSettings
from engine.stream import output_memory
from engine.stream.output_memory import delay_for, remember, remember_correction

HEADSET, LOUDSPEAKERS = VoiceOutSettings(name="Headset"), VoiceOutSettings(name="Loudspeakers")
USUAL = pytest.approx(0.130)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Measurements are kept in an empty folder."""
    monkeypatch.setattr(output_memory, "cache_folder", lambda: tmp_path)
    return tmp_path


def test_unknown_output_is_a_usual_one():
    assert delay_for(HEADSET) == delay_for(HEADSET, 0.0) == delay_for(HEADSET, 0.040) == USUAL
    assert delay_for(HEADSET, -0.200) == pytest.approx(0.330), "who plays sooner must have waited longer"


@pytest.mark.parametrize("correction_s", [-0.100, 0.0, 0.050])
def test_next_session_has_the_delay_that_was_needed(correction_s):
    remember(HEADSET, 0.400, correction_s)
    assert delay_for(HEADSET, correction_s) == delay_for(HEADSET) >= 0.400
    assert delay_for(HEADSET, 0.0) == pytest.approx(0.410 + correction_s)
    assert delay_for(LOUDSPEAKERS) == delay_for(VoiceOutSettings(name="Headset", host_api="ASIO")) == USUAL


def test_correction_of_the_last_time_is_known_before_the_device_is_looked_for():
    remember_correction(HEADSET, -0.200)
    assert delay_for(HEADSET) == pytest.approx(0.330) and delay_for(HEADSET, 0.0) == USUAL
    assert delay_for(VoiceOutSettings(name="Headset", offset_ms=-50.0)) == pytest.approx(0.180), "what is set counts"
    remember(HEADSET, 0.400, -0.200)
    remember_correction(HEADSET, 0.0)
    assert delay_for(HEADSET) == pytest.approx(0.210), "and what the output needs stays"


def test_nothing_is_written_where_nothing_is_new(folder):
    remember_correction(HEADSET, 0.0004)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"/Headset": "x"}', '{"/Headset": {"output_s": 4000}}', '{"/Headset": {"correction_s": null}}'],
)
def test_damaged_memory_is_none(folder, text):
    (folder / "outputs.json").write_text(text)
    assert delay_for(HEADSET) == USUAL
    remember(HEADSET, 0.4, 0.0)
    assert delay_for(HEADSET) > 0.4


def test_folder_that_cannot_be_written_is_logged(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(output_memory, "cache_folder", lambda: tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        remember(HEADSET, 0.4, 0.0)
    assert "sound output" in caplog.text and delay_for(HEADSET) == USUAL
