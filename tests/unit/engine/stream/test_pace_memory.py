"""Measured paces are kept from session to session, and a broken file is no more than forgetting."""

from __future__ import annotations

import logging
import os

import pytest

from engine.settings import GeneratorSettings
from engine.stream.pace_memory import recall, remember

SLOW = GeneratorSettings(name="slow", options={"steps": 4, "size": "768x448"})


def test_last_measurement_is_recalled(tmp_path):
    assert recall(SLOW, tmp_path) is None
    remember(SLOW, 0.71239, tmp_path)
    assert recall(SLOW, tmp_path) == 0.712
    remember(SLOW, 1.5, tmp_path)
    assert recall(SLOW, tmp_path) == 1.5


def test_each_choice_of_generator_and_options_has_its_own(tmp_path):
    others = [
        GeneratorSettings(name="slow", options={"steps": 2, "size": "768x448"}),
        GeneratorSettings(name="slow"),
        GeneratorSettings(name="other", options=SLOW.options),
    ]
    remember(SLOW, 1.0, tmp_path)
    assert [recall(other, tmp_path) for other in others] == [None] * 3
    for index, other in enumerate(others):
        remember(other, 2.0 + index, tmp_path)
    assert [recall(s, tmp_path) for s in (SLOW, *others)] == [1.0, 2.0, 3.0, 4.0]


def test_order_of_options_and_seed_do_not_matter(tmp_path):
    remember(SLOW, 1.0, tmp_path)
    again = GeneratorSettings(name="slow", seed=7, options={"size": "768x448", "steps": 4})
    assert recall(again, tmp_path) == 1.0


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "\x00"])
def test_broken_file_is_as_good_as_none(tmp_path, text):
    (tmp_path / "pace.json").write_text(text)
    assert recall(SLOW, tmp_path) is None
    remember(SLOW, 1.0, tmp_path)
    assert recall(SLOW, tmp_path) == 1.0


@pytest.mark.parametrize("value", ['"fast"', "-1", "60", "1e9", "NaN", "null", "[1]"])
def test_value_that_cannot_be_is_not_recalled(tmp_path, value):
    """A session of a minute's delay would be of no use to anybody."""
    remember(SLOW, 1.0, tmp_path)
    path = tmp_path / "pace.json"
    path.write_text(path.read_text().replace("1.0", value))
    assert recall(SLOW, tmp_path) is None


def test_folder_that_cannot_be_written_is_logged_and_forgotten(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        remember(SLOW, 1.0, tmp_path / "file")
    assert "pace" in caplog.text and recall(SLOW, tmp_path / "file") is None


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    remember(SLOW, 1.0, tmp_path)
    assert list(tmp_path.iterdir()) == []
