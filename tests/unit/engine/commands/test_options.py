"""Options of the commands become settings, or a sentence about what is wrong."""

from __future__ import annotations

import argparse

import pytest

from engine.commands.options import add_picture_options, canvas_settings, generator_settings
from engine.errors import UsageError


@pytest.fixture
def parse():
    """Arguments after `--portrait p`."""
    parser = argparse.ArgumentParser()
    add_picture_options(parser)
    return lambda *arguments: parser.parse_args(["--portrait", "p", *arguments])


def test_defaults_are_those_of_the_product(parse):
    canvas, generator = canvas_settings(parse()), generator_settings(parse())
    assert (canvas.width, canvas.height, canvas.fill, canvas.is_mirrored) == (1280, 720, "blur", False)
    assert (generator.name, generator.seed, generator.options) == ("puppet", 0, {}) and parse().fps == 25


def test_canvas(parse):
    canvas = canvas_settings(parse("--canvas", "640X360", "--fill", "solid", "--colour", "#00ff00", "--mirror"))
    assert (canvas.width, canvas.height, canvas.fill, canvas.colour, canvas.is_mirrored) == (
        640, 360, "solid", "#00ff00", True,
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "x", "1280", "1280x", "1280x720x3", "axb", "12.5x7", "1280 720"])
def test_what_is_no_size_is_told_how_to_write_one(parse, text):
    with pytest.raises(UsageError, match="not a canvas size") as caught:
        canvas_settings(parse("--canvas", text))
    assert "1280x720" in caught.value.hint


@pytest.mark.parametrize("arguments", [("--canvas", "1280x721"), ("--canvas", "-1280x-720"), ("--colour", "red")])
def test_what_is_not_offered_is_told_what_is(parse, arguments):
    with pytest.raises(UsageError) as caught:
        canvas_settings(parse(f"{arguments[0]}={arguments[1]}"))
    assert caught.value.hint


@pytest.mark.parametrize(
    "arguments", [("--fps", "24"), ("--fill", "stretch"), ("--generator", "magic"), ("--seed", "x")]
)
def test_wrong_choices_end_with_2(parse, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_generators_own_options_have_the_type_they_look_like(parse):
    pairs = ("a=1", "b=1.5", "c=true", "d=false", "e=yes", "f=", "g=x=y", "h=-2", "i=1e3", "j=True")
    options = generator_settings(parse(*(word for pair in pairs for word in ("--set", pair)))).options
    assert options == {
        "a": 1, "b": 1.5, "c": True, "d": False, "e": "yes", "f": "", "g": "x=y", "h": -2, "i": 1000.0, "j": "True",
    }  # fmt: skip
    assert type(options["a"]) is int and type(options["c"]) is bool


def test_last_one_of_the_same_name_counts_and_seeds_may_be_anything(parse):
    generator = generator_settings(parse("--set", "a=1", "--set", "a=2", "--seed", "-7"))
    assert generator.options == {"a": 2} and generator.seed == -7


@pytest.mark.parametrize("pair", ["", "a", "=1", "="])
def test_what_is_no_option(parse, pair):
    with pytest.raises(UsageError, match="not an option") as caught:
        generator_settings(parse("--set", pair))
    assert "KEY=VALUE" in caught.value.hint
