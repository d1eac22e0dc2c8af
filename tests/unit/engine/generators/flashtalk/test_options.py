"""The options in one place: what is taken, what is refused, and that each is told to people."""

from __future__ import annotations

import json
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.generators.flashtalk.options import FlashTalkOptions, one_of, takes_flashtalk_options
from engine.worker.smaller import smaller_sizes

DOCS = Path(__file__).resolve().parents[5] / "docs" / "flashtalk.md"


def test_every_default_is_taken_as_it_is():
    """Or what a person reads back and passes on would be refused."""
    options = FlashTalkOptions()
    assert FlashTalkOptions.of(options.as_dict()) == options == FlashTalkOptions.of({})


def test_none_is_the_default():
    assert FlashTalkOptions.of(dict.fromkeys(("size", "steps", "prompt", "chunk"))) == FlashTalkOptions()


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ({"steps": 3.0}, 3), ({"steps": "auto"}, "auto"), ({"chunk": 17.0}, 17), ({"checkpoint": 5}, "5"),
        ({"color_match": 0}, 0.0), ({"prompt": 42}, "42"), ({"graphs": True}, "on"), ({"graphs": False}, "off"),
    ],
)  # fmt: skip
def test_what_was_typed_may_be_of_any_type(typed, kept):
    (name,) = typed
    value = getattr(FlashTalkOptions.of(typed), name)
    assert value == kept and type(value) is type(kept)


def test_ranks_get_the_same_through_json():
    options = FlashTalkOptions.of({"steps": "auto", "chunk": 21, "size": "64x48", "color_match": 0.5})
    assert FlashTalkOptions.of(json.loads(json.dumps(options.as_dict()))) == options


def test_a_name_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no option") as raised:
        FlashTalkOptions.of({"wings": 2})
    assert all(item.name in raised.value.hint for item in fields(FlashTalkOptions))


@pytest.mark.parametrize(
    ("options", "counts"),
    [({}, (4, 3, 2)), ({"steps": 3}, (3, 2)), ({"steps": 2}, (2,)), ({"steps": "auto"}, (4, 3, 2))],
)
def test_a_chunk_can_be_cheaper_than_its_stream_and_never_dearer(options, counts):
    made = FlashTalkOptions.of(options)
    assert made.step_counts == counts and len(made.spec.economies) == len(counts) - 1


@pytest.mark.parametrize(("chunk", "frames", "latent"), [(33, 28, 9), (21, 16, 6), (17, 12, 5)])
def test_a_chunk_gives_all_frames_but_the_five_repeated(chunk, frames, latent):
    options = FlashTalkOptions.of({"chunk": chunk})
    assert options.spec.chunk.frames == frames
    assert (options.shape.latent[1], options.shape.tokens) == (latent, latent * 48 * 28)
    assert options.shape.chunk_samples == frames * 640


def test_each_option_has_its_sentence_and_its_place_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    for item in fields(FlashTalkOptions):
        assert item.metadata["help"], item.name
        assert item.name == "fps" or f"`{item.name}`" in text, item.name


def test_a_class_that_takes_them_shows_them():
    @takes_flashtalk_options
    class Kind:
        def __init__(self, *, seed: int = 0, steps: str = "own", **options) -> None:
            pass

    shown = signature(Kind).parameters
    assert set(shown) == {item.name for item in fields(FlashTalkOptions)} | {"seed"}
    assert shown["steps"].default == "own" and shown["chunk"].default == 33


def test_one_of_tells_its_words():
    with pytest.raises(UsageError, match='"3" is not a colour') as raised:
        one_of("colour", "red", "blue")(3)
    assert "red, blue" in raised.value.hint


def test_smaller_sizes_are_found_for_steps_by_the_sound_too():
    assert smaller_sizes({"steps": "auto"}) == smaller_sizes({}) != []
