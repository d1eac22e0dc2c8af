"""From measurements to what the window offers."""

import json

import pytest

from engine.errors import Cancelled, GeneratorError
from engine.portrait.load import load_portrait
from engine.tuning import recommend as module
from engine.tuning import store
from engine.tuning.estimates import USES, Estimate


@pytest.fixture
def quick(monkeypatch):
    """The puppet's own costs in the shortest time."""
    monkeypatch.setattr(module, "_FRAMES", 2)
    monkeypatch.setattr("engine.tuning.frame_costs._WARM_UP", 1)
    monkeypatch.setattr(module, "CANVAS_SIZES", ((640, 360), (1280, 720)))
    return load_portrait("sample:")


def result(words, chunk_s, *, quality=0.0, chunk=33, frames=28, is_measured=False):
    return {
        "options": {"size": "768x448", "chunk": chunk, "steps": 4, "precision": "auto"}, "frames": frames,
        "chunk_s": chunk_s, "first_frame_s": 0.6 * chunk_s, "memory_bytes": 36_400_000_000, "quality": quality,
        "words": words, "is_measured": is_measured,
    }  # fmt: skip


def test_without_a_gpu_the_puppet_is_measured_on_every_canvas(quick, monkeypatch, quiet):
    def no_gpu(progress):
        raise GeneratorError("FlashTalk needs an NVIDIA GPU, and none can be used here.")

    found = module.recommend(quick, quiet, probe=no_gpu)
    assert set(found.best) == set(USES)
    assert {estimate.generator for estimate in found.best.values()} == {"puppet"}
    assert found.best["presentation"].frames_per_s > 0 and found.best["conversation"].load > 0
    assert found.notes[0] == "FlashTalk needs an NVIDIA GPU, and none can be used here. FlashTalk is not offered."


def test_a_gpu_that_keeps_up_is_used(quick, quiet):
    found = module.recommend(
        quick, quiet, probe=lambda _: [result("768 x 448, 4 steps", 0.9, quality=2), result("slow", 2.0, quality=3)]
    )
    presentation = found.best["presentation"]
    assert presentation.generator == "flashtalk" and presentation.words == "FlashTalk, 768 x 448, 4 steps"
    assert presentation.frames_per_s == pytest.approx(28 / 0.9)
    assert presentation.delay_s > 28 / 25 + 0.54, "a chunk is heard, then its first frame is made"


def test_a_gpu_that_does_not_keep_up_is_told_and_the_puppet_taken(quick, quiet):
    found = module.recommend(quick, quiet, probe=lambda _: [result("512 x 320, 2 steps", 2.0)])
    assert found.notes == ("At most 14 frames a second would be reached here: FlashTalk, 512 x 320, 2 steps.",)
    assert found.best["balanced"].generator == "puppet"


def test_what_is_recommended_is_measured_and_chosen_again_where_the_guess_was_wrong(monkeypatch, quiet):
    asked = []

    class Probe:
        @staticmethod
        def measured(guess, progress):
            asked.append(guess["words"])
            return guess | {"chunk_s": 3.0 if guess["words"] == "hoped" else 0.8, "is_measured": True}

    monkeypatch.setattr(module, "probe_of", lambda name: Probe)
    results = [result("hoped", 0.9, quality=5), result("safe", 0.9, quality=1)]
    module._confirm(results, module.time.monotonic(), quiet)
    assert asked == ["hoped", "safe"]
    best = module.choose([module._of(r) for r in results])
    assert {estimate.words for estimate in best.values()} == {"FlashTalk, safe"}
    assert all(estimate.is_measured for estimate in best.values())


def test_what_cannot_be_measured_is_not_recommended(monkeypatch, quiet):
    class Probe:
        @staticmethod
        def measured(guess, progress):
            raise GeneratorError("There is no room for it.")

    monkeypatch.setattr(module, "probe_of", lambda name: Probe)
    results = [result("large", 0.9)]
    module._confirm(results, module.time.monotonic(), quiet)
    assert results == []


def test_it_can_be_cancelled(quick, quiet):
    def stop(progress):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        module.recommend(quick, quiet, probe=stop)


@pytest.fixture
def recommendation():
    estimate = Estimate(generator="puppet", frames_per_s=80.0, delay_s=0.16, words="puppet, 640 x 360")
    return module.Recommendation(computer="2 cores", best=dict.fromkeys(USES, estimate), notes=("slow",))


def test_it_is_kept_for_the_window_and_for_nobody_else(recommendation, tmp_path):
    assert store.store(recommendation.as_dict(), tmp_path / "new") == ""
    path = store.recommendation_path(tmp_path / "new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.load(tmp_path / "new") == json.loads(json.dumps(recommendation.as_dict()))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_disk_that_takes_nothing_is_told(recommendation, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert store.store(recommendation.as_dict(), tmp_path / "file").startswith("It could not be kept in")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"best": 3}'])
def test_what_cannot_be_read_is_no_recommendation(tmp_path, text):
    store.recommendation_path(tmp_path).write_text(text)
    assert store.load(tmp_path) is None
    assert store.load(tmp_path / "nowhere") is None
