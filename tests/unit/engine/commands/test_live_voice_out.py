"""The output of `standin live`, where its name alone does not say which one is meant."""

from __future__ import annotations

import argparse

import pytest

from engine.commands import live
from engine.settings import VoiceOutSettings


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ([], None),
        (["--voice-out", "Cable"], VoiceOutSettings(name="Cable")),
        (["--voice-out", "Cable", "--voice-out-api", "MME"], VoiceOutSettings(name="Cable", host_api="MME")),
        (["--voice-out", "default"], VoiceOutSettings(name="")),
    ],
)
def test_host_api_of_the_output_can_be_given(given, settings):
    parser = argparse.ArgumentParser()
    live.add_to(parser.add_subparsers())
    arguments = parser.parse_args(["live", "--portrait", "sample:", *given])
    assert live._settings(arguments).voice_out == settings
