"""FlashTalk behind the generator interface, from a complete tiny checkpoint: what it is told, and orders of calls."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import Cancelled, GeneratorError, ModelFilesError, UsageError  # noqa: E402
from engine.generators.factory import create_generator  # noqa: E402
from engine.generators.flashtalk import feature_cache  # noqa: E402
from engine.generators.flashtalk import models as models_module  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.generators.flashtalk.options import SIZES  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folders")


# ----------------------------------------------------------------------------------- what it is told


def test_spec_is_known_before_anything_is_loaded():
    spec = FlashTalkGenerator().spec
    assert (spec.name, spec.height, spec.width, spec.follows_canvas) == ("flashtalk", 768, 448, False)
    assert (spec.chunk.fps, spec.chunk.frames, spec.chunk.lookahead_samples) == (25, 28, 0)
    assert FlashTalkGenerator(size="448x768").spec.width == 768
    for height, width in SIZES:
        spec = FlashTalkGenerator(size=f"{height}x{width}").spec
        assert (spec.height, spec.width) == (height, width)


@pytest.mark.parametrize(
    "option",
    [
        {"fps": 30}, {"fps": 24}, {"steps": 5}, {"steps": 1}, {"steps": 0}, {"steps": "many"}, {"steps": 2.5},
        {"color_match": 1.5}, {"color_match": -0.1}, {"color_match": float("nan")}, {"color_match": "high"},
        {"size": "100x100"}, {"size": "768"}, {"size": "768x"}, {"size": "big"}, {"size": "768 x 448"}, {"size": "0x0"},
        {"device": "gpu"}, {"device": "cuda:x"}, {"device": ""}, {"device": 0},
        {"size": "768x448x3"}, {"size": ""}, {"size": "-768x448"}, {"size": 512}, {"size": "7x8"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_offered_is_refused_with_a_hint(option):
    with pytest.raises(UsageError) as raised:
        FlashTalkGenerator(**option)
    assert raised.value.hint and raised.value.message


@pytest.mark.parametrize(
    "option", [{"fps": 30}, {"steps": 5}, {"color_match": "high"}, {"size": 512}, {"device": "gpu"}]
)
def test_ranks_refuse_the_same_at_once(option):
    """The generator that the factory makes runs in other processes, and must not wait for those to say so."""
    fps = option.pop("fps", 25)
    with pytest.raises(UsageError) as raised:
        create_generator("flashtalk", fps=fps, options=option)
    assert raised.value.hint


def test_the_factory_makes_it_by_name():
    spec = create_generator("flashtalk", options={"steps": 3.0, "size": "64x48"}).spec
    assert spec == FlashTalkGenerator(size="64x48", steps=3).spec
    with pytest.raises(UsageError, match="no option"):
        create_generator("flashtalk", options={"wings": 2})
    with pytest.raises(ModelFilesError, match="There is no directory 5"):
        create_generator("flashtalk", options={"checkpoint": 5}).check()


def test_numbers_as_names_are_names(rig, tmp_path, tiny_checkpoint, portrait):
    """`--set checkpoint=5` is the folder called 5."""
    with pytest.raises(ModelFilesError, match="There is no directory 5"):
        FlashTalkGenerator(checkpoint=5).check()
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), prompt=42, steps=3.0, size="32x32", device="cpu")
    generator.prepare(portrait, (1, 1), rig.Progress())
    writer = rig.Writer((32, 32))
    generator.generate(rig.chunk(0), writer)
    assert len(writer.images) == rig.FRAMES
    generator.close()


# ----------------------------------------------------------------------------------- preparing


def test_preparing_tells_its_stages_and_that_a_cpu_is_slow(rig, tiny_checkpoint, portrait, monkeypatch, tmp_path):
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), size="32x32", device="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generator.check()
    notices = generator.prepare(portrait, (1, 1), progress := rig.Progress())
    assert [notice.code for notice in notices] == ["flashtalk.cpu"]
    stages = list(dict.fromkeys(progress.stages))
    assert stages == [
        "checkpoint", "text encoder", "image encoder", "video autoencoder", "speech encoder", "transformer", "portrait",
    ]  # fmt: skip
    generator.close()


@pytest.mark.parametrize(
    "stage", ["checkpoint", "text encoder", "image encoder", "video autoencoder", "transformer", "portrait"]
)
def test_preparing_can_be_stopped_and_leaves_nothing(rig, tiny_checkpoint, portrait, monkeypatch, tmp_path, stage):
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), size="32x32", device="cpu")
    with pytest.raises(Cancelled):
        generator.prepare(portrait, (1, 1), rig.Progress(stage))
    generator.close()
    gc.collect()
    assert not models_module._POOL.loaded


@pytest.mark.parametrize("missing", ["config.json", "Wan2.1_VAE.pth", "google/umt5-xxl/tokenizer.json"])
def test_a_folder_that_is_not_the_checkpoint_is_refused_by_check_and_prepare(
    rig, tiny_checkpoint, portrait, tmp_path, missing
):
    folder = Path(shutil.copytree(tiny_checkpoint[0], tmp_path / "model"))
    shutil.copytree(tiny_checkpoint[1], tmp_path / "chinese-wav2vec2-base")
    (folder / missing).unlink()
    generator = FlashTalkGenerator(checkpoint=str(folder), size="32x32", device="cpu")
    for call in (generator.check, lambda: generator.prepare(portrait, (1, 1), rig.Progress())):
        with pytest.raises(ModelFilesError) as raised:
            call()
        assert missing in raised.value.message and raised.value.hint


def test_an_index_that_names_a_missing_shard_is_refused(tiny_checkpoint, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint[0], tmp_path / "model"))
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelFilesError, match=shard.name):
        FlashTalkGenerator(checkpoint=str(folder), speech_encoder=str(tiny_checkpoint[1]), size="32x32").check()


def test_without_a_folder_the_store_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.paths.models_folder", lambda: tmp_path)
    monkeypatch.setattr("engine.paths.data_folder", lambda: tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ModelFilesError, match="standin models download"):
        FlashTalkGenerator().check()


def test_too_little_gpu_memory_is_told_before_anything_is_loaded(rig, tiny_checkpoint, portrait, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000_000, 10**11))
    for name, value in (("memory_reserved", 3_000_000), ("memory_allocated", 1_000_000)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cuda")
    for call in (generator.check, lambda: generator.prepare(portrait, (1, 1), rig.Progress())):
        with pytest.raises(GeneratorError, match=r"768x448, and 0.0 GB are free") as raised:
            call()
        assert raised.value.code == "flashtalk.memory"
    # What torch itself holds and does not use is free as well.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10**9)
    generator.check()


def test_a_gpu_or_kernel_that_is_not_there_is_refused(rig, tiny_checkpoint, portrait, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(GeneratorError, match="no CUDA device cuda here"):
        FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cuda").check()
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cpu", attention="flash9", size="32x32")
    with pytest.raises(UsageError, match="flash9"):
        generator.prepare(portrait, (1, 1), rig.Progress())


# ----------------------------------------------------------------------------------- orders of calls


def test_frames_before_a_portrait_or_after_the_end_are_refused(rig, make):
    with pytest.raises(GeneratorError, match="before it had a portrait"):
        FlashTalkGenerator().generate(rig.chunk(0), rig.Writer())
    generator = make()
    generator.close()
    with pytest.raises(GeneratorError):
        generator.generate(rig.chunk(0), rig.Writer())


def test_closing_and_resetting_are_safe_at_any_time(rig, make):
    fresh = FlashTalkGenerator()
    fresh.reset()
    fresh.close()
    fresh.close()
    used = make()
    rig.run(used, 0)
    used.close()
    used.close()
    used.reset()
    assert used.take_notices() == []


def test_an_error_of_the_writer_passes_through_and_leaves_the_stream_usable(rig, make):
    generator = make()

    class Broken(rig.Writer):
        def commit(self, frame):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        generator.generate(rig.chunk(0), Broken())
    generator.reset()
    assert np.array_equal(rig.run(generator, 0), rig.run(make(), 0))
