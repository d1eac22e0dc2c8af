"""Settings refuse what is not possible when they are built, from code and from JSON alike."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import UsageError
from engine.settings import (
    CANVAS_SIZES,
    FRAME_RATES,
    CameraSettings,
    CanvasSettings,
    FileSource,
    GeneratorSettings,
    MicrophoneSource,
    SessionSettings,
    SilentSource,
    VoiceOutSettings,
)


def test_sizes_are_safe_for_call_programs():
    for width, height in CANVAS_SIZES:
        assert width % 64 == 0 and height % 2 == 0 and width * 9 == height * 16
        CanvasSettings(width=width, height=height)


@pytest.mark.parametrize("size", [(0, 0), (1280, 721), (1281, 720), (720, 1280), (-1280, 720), (100_000, 100_000)])
def test_other_sizes_are_refused_and_the_offered_ones_named(size):
    with pytest.raises(UsageError) as caught:
        CanvasSettings(width=size[0], height=size[1])
    assert "1280x720" in caught.value.hint


@pytest.mark.parametrize(
    "colour", ["", "20242c", "#20242", "#20242cc", "#gggggg", "red", "#+1-2.3", "#20 42c", "#١٢٣٤٥٦"]
)
def test_colours_that_are_none(colour):
    with pytest.raises(UsageError):
        CanvasSettings(colour=colour)


def test_colours_in_either_case():
    assert CanvasSettings(colour="#AbCdEf").colour == "#AbCdEf"


@pytest.mark.parametrize("fps", [0, -25, 24, 26, 1000])
def test_frame_rates(fps):
    for good in FRAME_RATES:
        SessionSettings(portrait="p", fps=good)
    with pytest.raises(UsageError, match="frames a second"):
        SessionSettings(portrait="p", fps=fps)


def test_settings_survive_the_way_to_the_engine():
    settings = SessionSettings(
        portrait="sample:",
        source=FileSource(path="a.wav", is_looped=True),
        generator=GeneratorSettings(name="puppet", seed=3, options={"a": 1, "b": "x", "c": True}),
        canvas=CanvasSettings(width=640, height=360, fill="crop", is_mirrored=True),
        fps=30,
        camera=CameraSettings(device="/dev/video42", backend="v4l2"),
        voice_out=VoiceOutSettings(name="Speakers"),
        recording="a.mp4",
        may_replace_recording=True,
        has_preview=True,
        is_muted=True,
    )
    assert msgspec.json.decode(msgspec.json.encode(settings), type=SessionSettings) == settings


@pytest.mark.parametrize("source", [MicrophoneSource(name="x"), FileSource(path="y"), SilentSource()])
def test_kind_of_source_is_kept(source):
    settings = SessionSettings(portrait="p", source=source)
    decoded = msgspec.json.decode(msgspec.json.encode(settings), type=SessionSettings)
    assert type(decoded.source) is type(source) and decoded == settings


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"portrait": 5}',
        '{"portrait": "p", "surprise": 1}',
        '{"portrait": "p", "fps": "25"}',
        '{"portrait": "p", "source": {"type": "radio"}}',
        '{"portrait": "p", "canvas": {"fill": "stretch"}}',
    ],
)
def test_wrong_types_and_unknown_fields_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=SessionSettings)


def test_impossible_values_in_json_are_the_same_usage_errors():
    with pytest.raises(UsageError):
        msgspec.json.decode('{"portrait": "p", "fps": 7}', type=SessionSettings)
    with pytest.raises(UsageError):
        msgspec.json.decode('{"portrait": "p", "canvas": {"width": 7}}', type=SessionSettings)


def test_settings_cannot_be_changed_and_share_no_options():
    first = SessionSettings(portrait="a")
    with pytest.raises(AttributeError):
        first.portrait = "c"
    first.generator.options["x"] = 1
    assert GeneratorSettings().options == {} and SessionSettings(portrait="b").generator.options == {}
