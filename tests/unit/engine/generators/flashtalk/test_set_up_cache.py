"""What set-up weights make is kept: a second start does not touch them, and nothing else is ever taken for it."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from engine.generators.flashtalk import feature_cache, set_up_cache  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402

TEXT, IMAGE, TIME = ("text_embedding", ".k.", ".v.", "norm_k."), ("img",), ("time_",)


class Start:
    """One start with a tiny checkpoint: the set-up weights that were read, the stages, what they made, and on request
    the first frames."""

    def __init__(self, rig, reads_of, portrait, checkpoint: Path, speech: Path, has_frames=False, **options) -> None:
        values = {"checkpoint": str(checkpoint), "speech_encoder": str(speech), "size": "{}x{}".format(*rig.SIDES)}
        generator = FlashTalkGenerator(**(values | {"device": "cpu"} | options))
        with reads_of() as reads:
            generator.prepare(portrait, (1, 1), progress := rig.Progress())
        self.read, self.all = reads.of(generator.models.dit)
        weights = dict(generator.models.dit.named_parameters())
        self.absent = {name for name, value in weights.items() if value.is_meta}
        self.bytes = sum(weights[name].nbytes for name in self.read)
        self.stages = progress.stages
        made = generator._stream._stepper._stream
        keys = [tensor for key in (*made.text, *made.image) for tensor in (key.k, key.v, key.bias)]
        self._made = [*(key for key in keys if key is not None), made.modulation, made.head_modulation]
        if has_frames:
            self.frames = rig.run(generator, 0)
        generator.close()

    def made_the_same(self, other: Start) -> bool:
        """All keys and values and the modulation, to the last bit."""
        pairs = list(zip(self._made, other._made, strict=True))
        return all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where entries are kept; the user's cache stays out of it."""
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "flashtalk" / "set-up"


@pytest.fixture(scope="module")
def reads_of(fixture_module):
    """What remembers which weights were read."""
    return fixture_module("weight_reads").WeightReads


@pytest.fixture
def start(rig, reads_of, portrait, tiny_checkpoint, cache):
    """A function: starts with these options."""
    return lambda person=portrait, checkpoint=tiny_checkpoint[0], **options: Start(
        rig, reads_of, person, checkpoint, tiny_checkpoint[1], **options
    )


@pytest.fixture(scope="module")
def first_start(rig, reads_of, portrait, tiny_checkpoint, tmp_path_factory):
    """The first start of all, and the cache that it left."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cache, "cache_folder", lambda: folder)
        return Start(rig, reads_of, portrait, *tiny_checkpoint, has_frames=True), folder


@pytest.fixture
def first(first_start, cache) -> Start:
    """It, as if it had just been."""
    shutil.copytree(first_start[1] / "flashtalk", cache.parent)
    return first_start[0]


def _entries(folder: Path) -> dict[str, Path]:
    """Part -> its entry, by the tensors in it."""
    parts = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            parts[{"bias,k,v": "text", "k,v": "image", "blocks,head": "times"}[",".join(sorted(file.keys()))]] = path
    return parts


def _of(names: set[str], parts: tuple[str, ...], but: tuple[str, ...] = ()) -> set[str]:
    return {name for name in names if any(p in name for p in parts) and not any(p in name for p in but)}


def test_a_second_start_reads_no_set_up_weights_and_makes_the_same_frames(first, start, cache):
    second = start(has_frames=True)
    assert first.read == first.all and first.bytes > 100_000
    assert second.read == set() and second.bytes == 0 and second.absent == first.all and not first.absent
    assert second.made_the_same(first) and np.array_equal(first.frames, second.frames)
    assert "text encoder" in first.stages and not {"text encoder", "image encoder"} & set(second.stages)
    assert set(_entries(cache)) == {"text", "image", "times"}


def test_features_that_are_gone_are_not_made_again_while_what_they_became_is_there(first, start, cache):
    for path in cache.parent.glob("*.safetensors"):
        path.unlink()
    assert start().stages.count("text encoder") == 0 and not list(cache.parent.glob("*.safetensors"))


def test_another_portrait_reads_what_portraits_need_and_another_prompt_what_prompts_need(first, start, portrait):
    other = replace(portrait, image=portrait.image[:, ::-1].copy(), digest="other")
    assert (second := start(other)).read == _of(first.all, IMAGE) and not second.made_the_same(first)
    assert start(prompt="Somebody sings.").read == _of(first.all, TEXT, but=IMAGE)
    assert start(size="16x32").read == _of(first.all, IMAGE)
    assert start(other).read == set() and start().made_the_same(first)
    assert _of(first.all, IMAGE) | _of(first.all, TEXT) | _of(first.all, TIME) == first.all


def test_another_precision_has_its_own(first, start):
    wide = start(precision="bf16")
    assert wide.read == first.all
    assert start(precision="bf16").read == start(precision="int8").read == set()


def test_a_checkpoint_that_differs_in_one_set_up_weight_is_another(first, start, tiny_checkpoint, tmp_path):
    """Whatever its name and size: it is told by samples of the tensors that count."""
    checkpoint = Path(shutil.copytree(tiny_checkpoint[0], tmp_path / "model"))
    path = sorted(checkpoint.glob("*.safetensors"))[0]
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    tensors["blocks.0.cross_attn.v.weight"] *= 1.5
    path.unlink()
    save_file(tensors, path)
    second = start(checkpoint=checkpoint)
    assert second.read == first.all and not second.made_the_same(first)


@pytest.mark.parametrize("damage", ["cut off", "a flipped bit", "another shape", "another precision", "a folder"])
def test_broken_entries_are_made_again(first, start, cache, caplog, damage):
    entries = _entries(cache)
    for path in entries.values():
        content = bytearray(path.read_bytes())
        tensors = load_file(path)
        if damage == "cut off":
            path.write_bytes(content[:-9])
        elif damage == "a flipped bit":
            content[-9] ^= 4
            path.write_bytes(content)
        elif damage == "a folder":
            path.unlink()
            path.mkdir()
        else:
            change = (lambda t: t[:-1].contiguous()) if damage == "another shape" else torch.Tensor.half
            feature_cache.write_entry(path, {name: change(value) for name, value in tensors.items()})
    with caplog.at_level(logging.WARNING):
        second = start()
    assert second.made_the_same(first) and second.read == first.all
    assert caplog.text.count("made again") == len(entries)
    if damage == "a flipped bit":
        assert start().bytes == 0


def test_a_full_disk_costs_only_time(start, cache, caplog, monkeypatch):
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with caplog.at_level(logging.WARNING):
        second = start()
    assert second.read == second.all and "could not be stored" in caplog.text and not list(cache.iterdir())


def test_the_oldest_make_room(first, start, cache, portrait, monkeypatch):
    size = sum(path.stat().st_size for path in cache.iterdir())
    entries = _entries(cache)
    monkeypatch.setattr(set_up_cache, "_KEPT_BYTES", size)
    for age, part in enumerate(("times", "text", "image")):
        os.utime(entries[part], (1000 - age, 1000 - age))
    start(replace(portrait, digest="other"))
    assert not entries["image"].exists() and entries["text"].exists() and entries["times"].exists()
    assert sum(path.stat().st_size for path in cache.iterdir()) == size
    assert start(replace(portrait, digest="other")).bytes == 0


def test_looking_ahead_encodes_only_what_a_start_would_miss(first, rig, portrait, tiny_checkpoint, cache):
    for path in cache.parent.glob("*.safetensors"):
        path.unlink()
    options = {"checkpoint": str(tiny_checkpoint[0]), "speech_encoder": str(tiny_checkpoint[1])}
    generator = FlashTalkGenerator(**options, size="{}x{}".format(*rig.SIDES), device="cpu")
    for person, wanted in ((portrait, set()), (replace(portrait, digest="other"), {"image encoder"})):
        generator.foresee(person, progress := rig.Progress())
        assert set(progress.stages) == wanted
