"""Corrections belong to the device that was really opened."""

from __future__ import annotations

import json

import pytest

from engine.audio import sync_memory
from engine.audio.devices import refresh
from engine.audio.sync_memory import opened_output, recall_ms, remember_ms
from engine.settings import VIRTUAL_MICROPHONE


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Corrections are kept in an empty folder."""
    monkeypatch.setattr(sync_memory, "data_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def outputs(sound):
    """Loudspeakers, and a cable that two host APIs have; the loudspeakers are the default."""
    sound.plug("Loudspeakers", outputs=2)
    sound.plug("Cable", outputs=2)
    sound.plug("Cable", outputs=2, host_api=1)
    sound.plug("Headset", outputs=2)
    sound.default_output = 0
    refresh()
    return sound


def test_name_as_typed_means_the_device_that_is_opened(outputs):
    assert opened_output("Cable", "") == opened_output("Cable", "ALSA") == ("Cable", "ALSA")
    assert opened_output("Cable", "JACK") == ("Cable", "JACK")
    assert opened_output("Gone", "JACK") == ("Gone", "JACK"), "what is not there is as it was typed"


def test_what_was_found_by_one_name_is_found_by_another(outputs):
    remember_ms(*opened_output("Cable", ""), -40.0)
    assert recall_ms(*opened_output("Cable", "ALSA")) == -40.0
    assert recall_ms(*opened_output("Cable", "JACK")) == 0.0


def test_default_is_the_device_that_it_was(outputs):
    remember_ms(*opened_output("", ""), 25.0)
    assert recall_ms(*opened_output("Loudspeakers", "ALSA")) == 25.0
    outputs.default_output = 3
    refresh()
    assert opened_output("", "") == ("Headset", "ALSA") and recall_ms(*opened_output("", "")) == 0.0


def test_virtual_microphone_is_itself(outputs):
    assert opened_output(VIRTUAL_MICROPHONE, "") == (VIRTUAL_MICROPHONE, "")
    remember_ms(VIRTUAL_MICROPHONE, "", -6.0)
    assert recall_ms(VIRTUAL_MICROPHONE, "") == -6.0


def test_old_corrections_are_read_but_for_that_of_the_default(outputs, folder):
    (folder / "sync.json").write_text(json.dumps({"/Cable": -12.0, "/": 30.0, "JACK/Cable": 7.0}))
    assert recall_ms("Cable", "ALSA") == -12.0 and recall_ms("Cable", "JACK") == 7.0
    assert recall_ms("", "") == 0.0 and recall_ms("Loudspeakers", "ALSA") == 0.0
    remember_ms("Cable", "ALSA", 3.0)
    assert recall_ms("Cable", "ALSA") == 3.0, "a new one counts more"
