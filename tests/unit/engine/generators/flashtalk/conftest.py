"""A FlashTalk generator from a complete tiny checkpoint, what it is tried with, and what its parts are."""

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import feature_cache  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.portrait.load import load_portrait  # noqa: E402


@pytest.fixture
def tape_recorder(fixture_module):
    """A recorder of its own for each test."""
    return fixture_module("tape_recorder").TapeRecorder()


@pytest.fixture(scope="session")
def random_conditions(fixture_module):
    """A function: conditions for a denoising step, in random numbers."""
    return fixture_module("dit_conditions").random_conditions


@pytest.fixture(scope="session")
def peak_bytes(fixture_module):
    """A function: the most bytes that the tensors made by a function held at once."""
    return fixture_module("peak_meter").peak_bytes


@pytest.fixture(scope="session")
def rig(fixture_module):
    """What a generator is tried with: progress, sound in chunks, and a place for its frames."""
    return fixture_module("flashtalk_rig")


@pytest.fixture(scope="session")
def portrait():
    """One that comes with Standin."""
    return load_portrait("sample:maya")


@pytest.fixture
def own_folders(tmp_path_factory, monkeypatch):
    """Features are encoded once for all tests; the user's cache and models stay out of it."""
    cache = tmp_path_factory.getbasetemp() / "flashtalk_generator_cache"
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: cache)


@pytest.fixture
def make(tiny_checkpoint, portrait, rig, own_folders):
    """Prepared generators; all closed afterwards."""
    made = []

    def make(**options) -> FlashTalkGenerator:
        height, width = rig.SIDES
        values = {"checkpoint": str(tiny_checkpoint[0]), "size": f"{height}x{width}", "steps": 2, "device": "cpu"}
        made.append(FlashTalkGenerator(**(values | options)))
        made[-1].prepare(portrait, (999, 77), rig.Progress())
        return made[-1]

    yield make
    for generator in made:
        generator.close()


@pytest.fixture(scope="session")
def tiny(fixture_module):
    """A tiny transformer, and a plain one to compare it with."""
    return fixture_module("tiny_dit")


@pytest.fixture
def no_gradients():
    """As in use."""
    with torch.no_grad():
        yield
