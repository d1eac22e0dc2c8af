"""A second portrait, prepared piece by piece between the chunks of a first one."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import ModelFilesError  # noqa: E402
from engine.generators.flashtalk import feature_cache, set_up_cache  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig, StreamShape  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.generators.flashtalk.memory import Demand, has_room_beside  # noqa: E402
from engine.generators.flashtalk.stream import anchor_in_pieces  # noqa: E402
from engine.generators.flashtalk.vae import Vae  # noqa: E402
from engine.generators.flashtalk.vae_coders import VaeConfig  # noqa: E402
from engine.generators.flashtalk.weights import precision_for  # noqa: E402


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """A cache for each test: what is found there makes other pieces."""
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)


@pytest.fixture
def other(portrait):
    """Another portrait."""
    return replace(portrait, image=portrait.image[:, ::-1].copy(), digest="other")


@pytest.fixture
def second(tiny_checkpoint, rig):
    """A function: a generator like those of `make` that is not prepared."""
    made = []

    def second() -> FlashTalkGenerator:
        size = "{}x{}".format(*rig.SIDES)
        made.append(FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), size=size, steps=2, device="cpu"))
        return made[-1]

    yield second
    for generator in made:
        generator.close()


def _prepared(generator, portrait, rig, before=lambda name, count: None) -> Counter:
    """How many pieces of each name there were; `before` is called before each one with its number among them."""
    names = Counter()
    for piece in generator.prepare_in_pieces(portrait, (1, 1), rig.Progress()):
        before(piece.name, names[piece.name])
        names[piece.name] += 1
    _wait_until_stored()
    return names


def _wait_until_stored() -> None:
    for thread in threading.enumerate():
        if thread.name == "set-up":
            thread.join()


def test_both_make_the_frames_that_they_would_make_alone(rig, make, second, other):
    alone = second()
    alone.prepare(other, (1, 1), rig.Progress())
    wanted, wanted_other = rig.run(make(), 0, 1, 2, 3), rig.run(alone, 0)
    for path in feature_cache.features_folder().rglob("*.safetensors"):
        path.unlink()
    running, images = make(), []

    def speak(name, count):
        if (name, count) in (("portrait", 0), ("portrait", 5), ("keys", 1), ("stream", 0)):
            images.append(rig.run(running, len(images)))

    generator = second()
    _prepared(generator, other, rig, before=speak)
    assert np.array_equal(np.concatenate(images), wanted)
    assert np.array_equal(rig.run(generator, 0), wanted_other)


def test_pieces_are_a_latent_frame_and_a_layer_each(rig, make, second, portrait, other):
    layers, frames = len(make().models.dit.blocks), 9
    pieces = _prepared(second(), other, rig)
    assert (pieces["portrait"], pieces["keys"]) == (frames, layers), "the prompt's keys are there already"
    assert _prepared(second(), portrait, rig)["keys"] == 0, "all of them are"
    for path in feature_cache.features_folder().rglob("*.safetensors"):
        path.unlink()
    assert _prepared(second(), other, rig)["keys"] == 2 * layers


def test_what_was_seen_ahead_is_not_read_again(rig, make, second, portrait, monkeypatch):
    make()
    generator, read = second(), []
    real = set_up_cache.read_entry
    monkeypatch.setattr(set_up_cache, "read_entry", lambda path, names: read.append(path) or real(path, names))
    generator.foresee(portrait, rig.Progress())
    assert len(read) == 3
    _prepared(generator, portrait, rig)
    assert len(read) == 3
    rig.run(generator, 0)


def test_one_that_is_given_up_leaves_the_other_as_it_was(rig, make, second, other):
    wanted, running = rig.run(make(), 0), make()
    generator = second()
    pieces = generator.prepare_in_pieces(other, (1, 1), rig.Progress())
    while next(pieces).name != "keys":
        pass
    pieces.close()
    generator.close()
    assert np.array_equal(rig.run(running, 0), wanted)


def test_what_goes_wrong_is_said_in_its_piece(rig, make, tiny_checkpoint, portrait, tmp_path):
    make()
    generator = FlashTalkGenerator(checkpoint=str(tmp_path / "nothing"), device="cpu")
    pieces = generator.prepare_in_pieces(portrait, (1, 1), rig.Progress())
    assert next(pieces).is_alone
    with pytest.raises(ModelFilesError):
        next(pieces)


def test_where_a_chunk_has_no_room_beside_a_portrait_that_is_half_encoded_it_is_encoded_at_once(make):
    shape = StreamShape(height=64, width=64)
    with torch.device("meta"):
        vae = Vae(VaeConfig()).bfloat16()
        stream = vae.encode_stream()
        stream.push(torch.empty(1, 3, 1, 64, 64))
    history = sum(frames.nbytes for frames in stream._history._frames.values())
    demand = Demand(config=DiTConfig(), shape=shape, precision=precision_for(torch.device("cuda")))
    needed = demand.parts().activations + history
    assert has_room_beside(demand, needed) and has_room_beside(demand, None)
    assert not has_room_beside(demand, needed - 1)
    halved = replace(demand, world=2)
    assert has_room_beside(halved, halved.parts().activations + history // 2)

    models, portrait = make().models, torch.zeros(1, 3, 1, 64, 64)
    pieces = [list(anchor_in_pieces(portrait, models.vae, shape, is_roomy=is_roomy)) for is_roomy in (True, False)]
    assert [len(each) for each in pieces] == [9, 1]
