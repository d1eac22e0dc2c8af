"""FlashTalk behind the generator interface, from a complete tiny checkpoint: every call in every order."""

from __future__ import annotations

import gc
import shutil
import weakref
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
from engine.generators.flashtalk.portrait_tensor import cover_and_crop  # noqa: E402
from engine.media import AudioChunk  # noqa: E402
from engine.portrait.load import load_portrait  # noqa: E402

SIDES = (32, 16)
FRAMES, SAMPLES = 28, 17_920


class Progress:
    """Remembers the stages; raises at the one called `stop`."""

    def __init__(self, stop: str = "") -> None:
        self.stages: list[str] = []
        self._stop = stop

    def update(self, stage, done, total, unit=""):
        self.stages.append(stage)
        if stage == self._stop:
            raise Cancelled("It was stopped.")


class Writer:
    """Hands out one buffer again and again, as a ring would, and keeps what was committed."""

    def __init__(self, sides=SIDES) -> None:
        self._buffer = np.empty((*sides, 3), np.uint8)
        self.numbers: list[int] = []
        self.images: list[np.ndarray] = []
        self.on_commit = lambda: None

    def next_image(self) -> np.ndarray:
        self._buffer[:] = np.random.default_rng(len(self.numbers)).integers(0, 256, self._buffer.shape, np.uint8)
        return self._buffer

    def commit(self, frame: int) -> None:
        self.numbers.append(frame)
        self.images.append(self._buffer.copy())
        self.on_commit()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Features are encoded once for all tests here; the user's cache and models stay out of it."""
    cache = tmp_path_factory.getbasetemp() / "flashtalk_generator_cache"
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: cache)


@pytest.fixture(scope="module")
def portrait():
    return load_portrait("sample:maya")


@pytest.fixture
def make(tiny_checkpoint, portrait):
    """Prepared generators; all closed afterwards."""
    made = []

    def make(**options) -> FlashTalkGenerator:
        values = {"checkpoint": str(tiny_checkpoint[0]), "size": f"{SIDES[0]}x{SIDES[1]}", "steps": 2, "device": "cpu"}
        made.append(FlashTalkGenerator(**(values | options)))
        made[-1].prepare(portrait, (999, 77), Progress())
        return made[-1]

    yield make
    for generator in made:
        generator.close()


def _voice(number: int = 0) -> np.ndarray:
    return (np.random.default_rng(100 + number).standard_normal(SAMPLES) * 0.05).astype(np.float32)


def _chunk(number: int, samples: np.ndarray | None = None, **changes) -> AudioChunk:
    values = {
        "first_frame": FRAMES * number, "frames": FRAMES, "first_sample": SAMPLES * number,
        "samples": _voice(number) if samples is None else samples,
    }  # fmt: skip
    return AudioChunk(**(values | changes))


def _run(generator, *numbers: int, samples: np.ndarray | None = None, **changes) -> np.ndarray:
    writer = Writer()
    for number in numbers:
        generator.generate(_chunk(number, samples, **changes), writer)
    return np.stack(writer.images)


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


def test_numbers_as_names_are_names(tmp_path, tiny_checkpoint, portrait):
    """`--set checkpoint=5` is the folder called 5."""
    with pytest.raises(ModelFilesError, match="There is no directory 5"):
        FlashTalkGenerator(checkpoint=5).check()
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), prompt=42, steps=3.0, size="32x32", device="cpu")
    generator.prepare(portrait, (1, 1), Progress())
    writer = Writer((32, 32))
    generator.generate(_chunk(0), writer)
    assert len(writer.images) == FRAMES
    generator.close()


# ----------------------------------------------------------------------------------- preparing


def test_preparing_tells_its_stages_and_that_a_cpu_is_slow(tiny_checkpoint, portrait, monkeypatch, tmp_path):
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), size="32x32", device="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generator.check()
    notices = generator.prepare(portrait, (1, 1), progress := Progress())
    assert [notice.code for notice in notices] == ["flashtalk.cpu"]
    stages = list(dict.fromkeys(progress.stages))
    assert stages == [
        "checkpoint", "text encoder", "image encoder", "video autoencoder", "speech encoder", "transformer", "portrait",
    ]  # fmt: skip
    generator.close()


@pytest.mark.parametrize(
    "stage", ["checkpoint", "text encoder", "image encoder", "video autoencoder", "transformer", "portrait"]
)
def test_preparing_can_be_stopped_and_leaves_nothing(tiny_checkpoint, portrait, monkeypatch, tmp_path, stage):
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), size="32x32", device="cpu")
    with pytest.raises(Cancelled):
        generator.prepare(portrait, (1, 1), Progress(stage))
    generator.close()
    gc.collect()
    assert not models_module._POOL.loaded


@pytest.mark.parametrize("missing", ["config.json", "Wan2.1_VAE.pth", "google/umt5-xxl/tokenizer.json"])
def test_a_folder_that_is_not_the_checkpoint_is_refused_by_check_and_prepare(
    tiny_checkpoint, portrait, tmp_path, missing
):
    folder = Path(shutil.copytree(tiny_checkpoint[0], tmp_path / "model"))
    shutil.copytree(tiny_checkpoint[1], tmp_path / "chinese-wav2vec2-base")
    (folder / missing).unlink()
    generator = FlashTalkGenerator(checkpoint=str(folder), size="32x32", device="cpu")
    for call in (generator.check, lambda: generator.prepare(portrait, (1, 1), Progress())):
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


def test_too_little_gpu_memory_is_told_before_anything_is_loaded(tiny_checkpoint, portrait, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000_000, 10**11))
    for name, value in (("memory_reserved", 3_000_000), ("memory_allocated", 1_000_000)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cuda")
    for call in (generator.check, lambda: generator.prepare(portrait, (1, 1), Progress())):
        with pytest.raises(GeneratorError, match=r"768x448, and 0.0 GB are free") as raised:
            call()
        assert raised.value.code == "flashtalk.memory"
    # What torch itself holds and does not use is free as well.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10**9)
    generator.check()


def test_a_gpu_or_kernel_that_is_not_there_is_refused(tiny_checkpoint, portrait, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(GeneratorError, match="no CUDA device cuda here"):
        FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cuda").check()
    generator = FlashTalkGenerator(checkpoint=str(tiny_checkpoint[0]), device="cpu", attention="flash9", size="32x32")
    with pytest.raises(UsageError, match="flash9"):
        generator.prepare(portrait, (1, 1), Progress())


# ----------------------------------------------------------------------------------- generating


def test_a_chunk_is_28_frames_in_order(make):
    generator, writer = make(), Writer()
    for number in (0, 1, 5):
        generator.generate(_chunk(number), writer)
    assert writer.numbers == [*range(56), *range(140, 168)]
    assert generator.take_notices() == [] and generator.recoveries == 0


def test_frames_are_those_of_the_stream(make, monkeypatch):
    """What is written is the colour-matched picture, cut to bytes."""
    generator, seen = make(), []
    real = generator._stream.frames

    def frames(latents):
        for raw, matched in real(latents):
            seen.append(matched.clone())
            yield raw, matched

    monkeypatch.setattr(generator._stream, "frames", frames)
    images = _run(generator, 0)
    wanted = torch.cat(seen, dim=2)[0].permute(1, 2, 3, 0).double().numpy()
    assert images.shape == (28, *SIDES, 3) and len(np.unique(images)) > 50
    exact = np.clip((wanted + 1) / 2, 0, 1) * 255
    assert np.abs(images - np.floor(exact)).max() <= 1 and (images == np.floor(exact)).mean() > 0.99


def test_frames_leave_before_the_chunk_is_decoded(make, monkeypatch):
    generator, events = make(), []
    real = generator._stream.frames

    def frames(latents):
        for group in real(latents):
            events.append("decoded")
            yield group

    monkeypatch.setattr(generator._stream, "frames", frames)
    writer = Writer()
    writer.on_commit = lambda: events.append("committed")
    generator.generate(_chunk(0), writer)
    assert events.index("committed") == 2 and events.count("decoded") == 7 and events.count("committed") == 28


def test_the_same_seed_and_sound_give_the_same_frames(make):
    first = _run(make(seed=3), 0, 1)
    assert np.array_equal(_run(make(seed=3), 0, 1), first)
    assert not np.array_equal(_run(make(seed=4), 0, 1), first)


def test_economies_are_the_smaller_numbers_of_steps():
    wanted = {4: ("3 steps", "2 steps"), 3: ("2 steps",), 2: ()}
    for steps, economies in wanted.items():
        assert FlashTalkGenerator(steps=steps).spec.economies == economies
        assert create_generator("flashtalk", options={"steps": steps}).spec.economies == economies


@pytest.mark.parametrize(("economy", "steps"), [(1, 3), (2, 2), (9, 2)])
def test_a_chunk_with_an_economy_is_that_of_a_generator_made_with_those_steps(make, economy, steps):
    """From the same state, bit for bit; and afterwards both go on with full work as if nothing had been."""
    full, cheap = make(steps=4), make(steps=steps)
    _run(full, 0)
    cheap._stream._motion, cheap._noise.chunk = full._stream.motion, full._noise.chunk
    cheap._speech._samples[:] = full._speech._samples
    images = _run(full, 1, economy=economy)
    assert np.array_equal(images, _run(cheap, 1))
    assert torch.equal(full._stream.motion, cheap._stream.motion)
    assert not np.array_equal(_run(full, 2), _run(cheap, 2)) and full._noise.chunk == cheap._noise.chunk == 3


# ----------------------------------------------------------------------------------- steps by the sound


def _words(number: int) -> np.ndarray:
    """Noise in bursts, which no ear takes for steady."""
    return _voice(number) * (np.arange(SAMPLES) // 2400 % 2)


def test_auto_gives_silence_fewer_steps_and_speech_all(make):
    """And the frames are those of a stream that is asked for just these steps."""
    generator, told = make(steps="auto"), make(steps=4)
    silence = np.zeros(SAMPLES, np.float32)
    sounds = [silence, silence, silence, silence, _words(4)]
    for number, (sound, economy) in enumerate(zip(sounds, (0, 0, 1, 2, 0), strict=True)):
        images = _run(generator, number, samples=sound)
        assert np.array_equal(images, _run(told, number, samples=sound, economy=economy)), number
    assert generator.step_counts.chunks == {4: 3, 3: 1, 2: 1}
    generator.reset()
    _run(generator, 0, samples=silence)
    assert generator.step_counts.chunks[4] == 4


def test_an_economy_bounds_what_auto_may_choose(make):
    generator = make(steps="auto")
    assert generator.spec.economies == ("at most 3 steps", "at most 2 steps")
    for number, economy in enumerate((0, 1, 2, 0)):
        _run(generator, number, samples=_words(number), economy=economy)
    assert generator.step_counts.chunks == {4: 2, 3: 1, 2: 1}


# ----------------------------------------------------------------------------------- shorter chunks


@pytest.mark.parametrize(("chunk", "frames"), [(33, 28), (21, 16), (17, 12)])
def test_shorter_chunks_are_sooner_and_follow_one_another(make, chunk, frames):
    generator, writer = make(chunk=chunk), Writer()
    spec = generator.spec.chunk
    assert (spec.frames, spec.lookahead_samples) == (frames, 0)
    assert create_generator("flashtalk", options={"chunk": chunk}).spec.chunk == spec
    sound = _voice(3)
    for number in range(2):
        samples = sound[: frames * 640]
        chunk = AudioChunk(
            first_frame=number * frames, frames=frames, first_sample=number * frames * 640, samples=samples
        )
        generator.generate(chunk, writer)
    assert writer.numbers == list(range(2 * frames))
    assert generator._stream.motion.shape[1] == 2 and generator.take_notices() == []
    assert not np.array_equal(writer.images[0], writer.images[frames])


@pytest.mark.parametrize("chunk", [32, 13, 37, "short", 0, -33, 17.5, None])
def test_other_chunks_are_not_offered(chunk):
    if chunk is None:
        assert FlashTalkGenerator(chunk=chunk).spec.chunk.frames == 28
        return
    with pytest.raises(UsageError) as raised:
        FlashTalkGenerator(chunk=chunk)
    assert raised.value.hint


# ----------------------------------------------------------------------------------- measuring


def test_each_chunk_can_be_measured_stage_by_stage(make):
    generator = make(steps=3)
    reference = _run(generator, 0, 1)
    generator.reset()
    times = generator.measure()
    assert np.array_equal(_run(generator, 0, 1), reference)
    assert len(times) == 2
    for chunk in times:
        stages = ["audio", "step 1", "step 2", "step 3", "decode", "colour", "copy out", "re-encode"]
        assert list(chunk.stages_s) == stages
        assert 0 < chunk.first_frame_s < chunk.last_frame_s <= chunk.total_s
        assert chunk.first_frame_s <= chunk.late_s <= chunk.last_frame_s
        assert 0 < sum(chunk.stages_s.values()) <= chunk.total_s
        assert all(seconds > 0 for seconds in chunk.stages_s.values())
    with pytest.raises(GeneratorError, match="before it has a portrait"):
        FlashTalkGenerator().measure()


def test_the_voice_is_heard(make):
    assert not np.array_equal(_run(make(), 0), _run(make(), 0, samples=_voice(7)))


def test_reset_begins_again_as_after_prepare(make):
    generator = make()
    first = _run(generator, 0, 1)
    generator.reset()
    assert np.array_equal(_run(generator, 0, 1), first)


def test_two_generators_share_models_and_nothing_else(make):
    """Interleaved they give what they give alone; closing one leaves the other what it needs."""
    apart = [_run(make(seed=seed), 0, 1, 2) for seed in (1, 2)]
    one, other = make(seed=1), make(seed=2)
    assert one._models is other._models
    together: tuple[list, list] = ([], [])
    for number in range(2):
        together[0].append(_run(one, number))
        together[1].append(_run(other, number))
    one.close()
    together[1].append(_run(other, 2))
    assert np.array_equal(np.concatenate(together[0]), apart[0][:56])
    assert np.array_equal(np.concatenate(together[1]), apart[1])


def test_the_last_one_to_close_frees_the_models(make):
    one, other = make(), make()
    gone = weakref.ref(one._models.dit)
    one.close()
    gc.collect()
    assert gone() is not None
    other.close()
    gc.collect()
    assert gone() is None


def test_silence_keeps_the_stream_fed(make):
    """Chunks of it are made as any others, so that speech afterwards finds the stream where it should be."""
    generator = make()
    silence = np.zeros(SAMPLES, np.float32)
    quiet = _run(generator, 0, 1, samples=silence)
    assert quiet.shape[0] == 56 and generator._noise.chunk == 2
    spoken = _run(generator, 2)
    assert spoken.shape[0] == 28 and generator.take_notices() == []
    expected = np.concatenate([np.zeros(128_000 - SAMPLES, np.float32), _voice(2)])
    assert np.array_equal(generator._speech._samples, expected)


def test_a_gap_in_the_sound_becomes_silence(make):
    generator = make()
    _run(generator, 0)
    late = _chunk(3, first_sample=SAMPLES + 12_345, is_discontinuous=True)
    generator.generate(late, writer := Writer())
    assert writer.numbers == list(range(84, 112))
    heard = np.concatenate([_voice(0), np.zeros(12_345, np.float32), _voice(3)])
    assert np.array_equal(generator._speech._samples[-len(heard) :], heard)
    assert not generator._speech._samples[: -len(heard)].any()
    # Far more than is remembered, and then back again: nothing breaks.
    generator.generate(_chunk(9, first_sample=10**12, is_discontinuous=True), Writer())
    assert np.array_equal(generator._speech._samples[-SAMPLES:], _voice(9))
    assert not generator._speech._samples[:-SAMPLES].any()
    generator.generate(_chunk(1, is_discontinuous=True), Writer())
    generator.generate(_chunk(2), Writer())
    assert np.array_equal(generator._speech._samples[-2 * SAMPLES :], np.concatenate([_voice(1), _voice(2)]))


# ----------------------------------------------------------------------------------- orders of calls


def test_frames_before_a_portrait_or_after_the_end_are_refused(make):
    with pytest.raises(GeneratorError, match="before it had a portrait"):
        FlashTalkGenerator().generate(_chunk(0), Writer())
    generator = make()
    generator.close()
    with pytest.raises(GeneratorError):
        generator.generate(_chunk(0), Writer())


def test_closing_and_resetting_are_safe_at_any_time(make):
    fresh = FlashTalkGenerator()
    fresh.reset()
    fresh.close()
    fresh.close()
    used = make()
    _run(used, 0)
    used.close()
    used.close()
    used.reset()
    assert used.take_notices() == []


def test_an_error_of_the_writer_passes_through_and_leaves_the_stream_usable(make):
    generator = make()

    class Broken(Writer):
        def commit(self, frame):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        generator.generate(_chunk(0), Broken())
    generator.reset()
    assert np.array_equal(_run(generator, 0), _run(make(), 0))


# ----------------------------------------------------------------------------------- collapses


def _spoil(monkeypatch, generator, change, chunks=None):
    """Change the groups of the chunks numbered `chunks` (all): `change(group number, raw, matched)`."""
    real, count = generator._stream.frames, iter(range(10**6))

    def frames(latents):
        number = next(count)
        for index, (raw, matched) in enumerate(real(latents)):
            if chunks is None or number in chunks:
                yield change(index, raw.clone(), matched.clone())
            else:
                yield raw, matched

    monkeypatch.setattr(generator._stream, "frames", frames)


def _noise(_, raw, matched):
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(raw.shape, generator=generator) * 2 - 1
    return noise.sign() * torch.ones_like(raw), matched


def _nan_in_the_third_group(index, raw, matched):
    if index == 2:
        raw[0, 0, 1, 3, 3] = float("nan")
        matched.fill_(float("nan"))
    return raw, matched


def test_pictures_that_are_no_numbers_are_never_shown(make, monkeypatch):
    """The last good frame stands in for the spoilt group, the stream begins anew, and it is told once."""
    generator = make()
    clean = _run(make(), 0, 1)
    _spoil(monkeypatch, generator, _nan_in_the_third_group, chunks={1})
    images = _run(generator, 0, 1)
    spoilt = slice(28 + 8, 28 + 12)
    assert np.array_equal(np.delete(images, np.r_[spoilt], axis=0), np.delete(clean, np.r_[spoilt], axis=0))
    assert all(np.array_equal(image, clean[27]) for image in images[spoilt])
    assert generator.recoveries == 1 and generator._stream.motion.shape[1] == 1
    (notice,) = generator.take_notices()
    assert notice.code == "flashtalk.recovered" and "anew" in notice.message
    assert generator.take_notices() == []
    _run(generator, 2)
    assert generator.recoveries == 1 and generator.take_notices() == []


def test_before_any_good_picture_the_portrait_stands_in(make, monkeypatch, portrait):
    generator = make()
    _spoil(monkeypatch, generator, lambda _, raw, matched: (raw * float("nan"), matched * float("nan")))
    images = _run(generator, 0, 1)
    still = cover_and_crop(portrait.image, *SIDES)
    assert all(np.array_equal(image, still) for image in images)
    assert generator.recoveries == 2 and len(generator.take_notices()) == 1


def test_spoilt_motion_heals_within_a_chunk(make):
    """A stream whose memory is no numbers would stay so for ever."""
    generator = make()
    _run(generator, 0)
    generator._stream._motion = torch.full_like(generator._stream._motion, float("nan"))
    assert generator._stream.chunk_latents is not None
    images = _run(generator, 1)
    assert generator.recoveries == 1 and generator._stream.motion.isfinite().all()
    assert all(np.array_equal(image, images[0]) for image in images)
    after = _run(generator, 2)
    assert generator.recoveries == 1 and not np.array_equal(after[0], after[-1])


def test_a_collapsed_chunk_begins_anew_and_is_counted(make, monkeypatch):
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={1, 4})
    told = []
    for number in range(6):
        _run(generator, number)
        told.append(len(generator.take_notices()))
        assert generator._stream.motion.shape[1] == (1 if number in (1, 4) else 2)
    assert told == [0, 1, 0, 0, 1, 0] and generator.recoveries == 2


def test_a_collapse_that_lasts_is_told_once_and_tried_every_time(make, monkeypatch):
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={0, 1, 2})
    told = []
    for number in range(4):
        _run(generator, number)
        told += generator.take_notices()
    assert generator.recoveries == 3 and len(told) == 1


def test_half_a_chunk_out_of_bounds_is_let_pass(make, monkeypatch):
    """A hand before the camera is no collapse; what does not pass will fill the next chunk."""
    generator = make()
    _spoil(monkeypatch, generator, lambda n, raw, matched: _noise(n, raw, matched) if n < 4 else (raw, matched))
    _run(generator, 0)
    assert generator.recoveries == 0 and generator._stream.motion.shape[1] == 2


def test_after_a_recovery_the_picture_is_again_near_the_portrait(make, monkeypatch):
    """The chunk after it continues from the portrait as the first one did."""
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={0})
    _run(generator, 0)
    assert torch.equal(generator._stream.motion, generator._stream._anchor.motion)


def test_reset_forgets_collapses_too(make, monkeypatch, portrait):
    generator = make()
    _spoil(monkeypatch, generator, lambda _, raw, matched: (raw * float("nan"), matched), chunks={1, 2})
    _run(generator, 0, 1)
    generator.reset()
    assert generator.recoveries == 0 and generator.take_notices() == []
    # Nor does an old stream's picture stand in for the new one's.
    assert np.array_equal(_run(generator, 0)[0], cover_and_crop(portrait.image, *SIDES))
    assert len(generator.take_notices()) == 1
