"""A recommendation as choices for the settings page."""

import json

import pytest

from app.settings.uses import offers
from engine.tuning.estimates import Estimate
from engine.tuning.recommend import Recommendation
from engine.tuning.store import store

OPTIONS = {"size": "768x448", "steps": 4}


def found(**changes):
    estimate = Estimate(
        generator="flashtalk", options=OPTIONS, canvas=(1280, 720), frames_per_s=31.2, delay_s=1.934,
        memory_bytes=38_200_000_000, words="FlashTalk, 768 x 448, 4 steps",
    )  # fmt: skip
    best = dict.fromkeys(("presentation", "conversation"), estimate)
    values = json.loads(json.dumps(Recommendation(computer="a GPU", best=best).as_dict()))
    values["best"]["conversation"] |= changes
    return values


def test_each_use_says_what_it_means_here():
    quick, best = offers(found())
    assert (quick.use, best.use) == ("conversation", "presentation")
    assert quick.title == "Conversation: least delay"
    assert best.words == (
        "FlashTalk, 768 x 448, 4 steps, 1934 ms behind you, up to 31 frames a second, 38 GB of GPU memory."
    )
    assert best.changes == {
        "use": "presentation", "generator": "flashtalk", "generator_options": json.dumps(OPTIONS, sort_keys=True),
        "canvas": "1280x720", "fps": 25,
    }  # fmt: skip


def test_a_guess_is_called_one():
    assert offers(found(is_measured=False, memory_bytes=None))[0].words.endswith("frames a second (predicted).")


@pytest.mark.parametrize(
    "damage",
    [{"canvas": [1, 2]}, {"canvas": 3}, {"generator": "magic"}, {"fps": 26}, {"delay_s": "soon"}, {"options": {1, 2}}],
)
def test_what_cannot_be_set_is_left_out(damage):
    assert [offer.use for offer in offers(found(**damage))] == ["presentation"]


def test_what_was_kept_is_offered(monkeypatch, tmp_path):
    monkeypatch.setattr("engine.tuning.store.data_folder", lambda: tmp_path)
    assert offers() == []
    assert store(found()) == ""
    assert [offer.use for offer in offers()] == ["conversation", "presentation"]
