"""The frames that FlashTalk makes of chunks of sound, from a complete tiny checkpoint."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import GeneratorError, UsageError  # noqa: E402
from engine.generators.factory import create_generator  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.media import AudioChunk  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folders")


def test_a_chunk_is_28_frames_in_order(rig, make):
    generator, writer = make(), rig.Writer()
    for number in (0, 1, 5):
        generator.generate(rig.chunk(number), writer)
    assert writer.numbers == [*range(56), *range(140, 168)]
    assert generator.take_notices() == [] and generator.recoveries == 0


def test_frames_are_those_of_the_stream(rig, make, monkeypatch):
    """What is written is the colour-matched picture, cut to bytes."""
    generator, seen = make(), []
    real = generator._stream.frames

    def frames(latents):
        for raw, matched in real(latents):
            seen.append(matched.clone())
            yield raw, matched

    monkeypatch.setattr(generator._stream, "frames", frames)
    images = rig.run(generator, 0)
    wanted = torch.cat(seen, dim=2)[0].permute(1, 2, 3, 0).double().numpy()
    assert images.shape == (28, *rig.SIDES, 3) and len(np.unique(images)) > 50
    exact = np.clip((wanted + 1) / 2, 0, 1) * 255
    assert np.abs(images - np.floor(exact)).max() <= 1 and (images == np.floor(exact)).mean() > 0.99


def test_frames_leave_before_the_chunk_is_decoded(rig, make, monkeypatch):
    generator, events = make(), []
    real = generator._stream.frames

    def frames(latents):
        for group in real(latents):
            events.append("decoded")
            yield group

    monkeypatch.setattr(generator._stream, "frames", frames)
    writer = rig.Writer()
    writer.on_commit = lambda: events.append("committed")
    generator.generate(rig.chunk(0), writer)
    assert events.index("committed") == 2 and events.count("decoded") == 7 and events.count("committed") == 28


def test_the_same_seed_and_sound_give_the_same_frames(rig, make):
    first = rig.run(make(seed=3), 0, 1)
    assert np.array_equal(rig.run(make(seed=3), 0, 1), first)
    assert not np.array_equal(rig.run(make(seed=4), 0, 1), first)


def test_economies_are_the_smaller_numbers_of_steps():
    wanted = {4: ("3 steps", "2 steps"), 3: ("2 steps",), 2: ()}
    for steps, economies in wanted.items():
        assert FlashTalkGenerator(steps=steps).spec.economies == economies
        assert create_generator("flashtalk", options={"steps": steps}).spec.economies == economies


@pytest.mark.parametrize(("economy", "steps"), [(1, 3), (2, 2), (9, 2)])
def test_a_chunk_with_an_economy_is_that_of_a_generator_made_with_those_steps(rig, make, economy, steps):
    """From the same state, bit for bit; and afterwards both go on with full work as if nothing had been."""
    full, cheap = make(steps=4), make(steps=steps)
    rig.run(full, 0)
    cheap._stream._motion, cheap._noise.chunk = full._stream.motion, full._noise.chunk
    cheap._speech._samples[:] = full._speech._samples
    images = rig.run(full, 1, economy=economy)
    assert np.array_equal(images, rig.run(cheap, 1))
    assert torch.equal(full._stream.motion, cheap._stream.motion)
    assert not np.array_equal(rig.run(full, 2), rig.run(cheap, 2)) and full._noise.chunk == cheap._noise.chunk == 3


# ----------------------------------------------------------------------------------- steps by the sound


def test_auto_gives_silence_fewer_steps_and_speech_all(rig, make):
    """And the frames are those of a stream that is asked for just these steps."""
    generator, told = make(steps="auto"), make(steps=4)
    silence = np.zeros(rig.SAMPLES, np.float32)
    sounds = [silence, silence, silence, silence, rig.words(4)]
    for number, (sound, economy) in enumerate(zip(sounds, (0, 0, 1, 2, 0), strict=True)):
        images = rig.run(generator, number, samples=sound)
        assert np.array_equal(images, rig.run(told, number, samples=sound, economy=economy)), number
    assert generator.step_counts.chunks == {4: 3, 3: 1, 2: 1}
    generator.reset()
    rig.run(generator, 0, samples=silence)
    assert generator.step_counts.chunks[4] == 4


def test_an_economy_bounds_what_auto_may_choose(rig, make):
    generator = make(steps="auto")
    assert generator.spec.economies == ("at most 3 steps", "at most 2 steps")
    for number, economy in enumerate((0, 1, 2, 0)):
        rig.run(generator, number, samples=rig.words(number), economy=economy)
    assert generator.step_counts.chunks == {4: 2, 3: 1, 2: 1}


# ----------------------------------------------------------------------------------- shorter chunks


@pytest.mark.parametrize(("chunk", "frames"), [(33, 28), (21, 16), (17, 12)])
def test_shorter_chunks_are_sooner_and_follow_one_another(rig, make, chunk, frames):
    generator, writer = make(chunk=chunk), rig.Writer()
    spec = generator.spec.chunk
    assert (spec.frames, spec.lookahead_samples) == (frames, 0)
    assert create_generator("flashtalk", options={"chunk": chunk}).spec.chunk == spec
    sound = rig.voice(3)
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


def test_each_chunk_can_be_measured_stage_by_stage(rig, make):
    generator = make(steps=3)
    reference = rig.run(generator, 0, 1)
    generator.reset()
    times = generator.measure()
    assert np.array_equal(rig.run(generator, 0, 1), reference)
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


def test_the_voice_is_heard(rig, make):
    assert not np.array_equal(rig.run(make(), 0), rig.run(make(), 0, samples=rig.voice(7)))


def test_reset_begins_again_as_after_prepare(rig, make):
    generator = make()
    first = rig.run(generator, 0, 1)
    generator.reset()
    assert np.array_equal(rig.run(generator, 0, 1), first)


def test_two_generators_share_models_and_nothing_else(rig, make):
    """Interleaved they give what they give alone; closing one leaves the other what it needs."""
    apart = [rig.run(make(seed=seed), 0, 1, 2) for seed in (1, 2)]
    one, other = make(seed=1), make(seed=2)
    assert one._models is other._models
    together: tuple[list, list] = ([], [])
    for number in range(2):
        together[0].append(rig.run(one, number))
        together[1].append(rig.run(other, number))
    one.close()
    together[1].append(rig.run(other, 2))
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


def test_silence_keeps_the_stream_fed(rig, make):
    """Chunks of it are made as any others, so that speech afterwards finds the stream where it should be."""
    generator = make()
    silence = np.zeros(rig.SAMPLES, np.float32)
    quiet = rig.run(generator, 0, 1, samples=silence)
    assert quiet.shape[0] == 56 and generator._noise.chunk == 2
    spoken = rig.run(generator, 2)
    assert spoken.shape[0] == 28 and generator.take_notices() == []
    expected = np.concatenate([np.zeros(128_000 - rig.SAMPLES, np.float32), rig.voice(2)])
    assert np.array_equal(generator._speech._samples, expected)


def test_a_gap_in_the_sound_becomes_silence(rig, make):
    generator = make()
    rig.run(generator, 0)
    late = rig.chunk(3, first_sample=rig.SAMPLES + 12_345, is_discontinuous=True)
    generator.generate(late, writer := rig.Writer())
    assert writer.numbers == list(range(84, 112))
    heard = np.concatenate([rig.voice(0), np.zeros(12_345, np.float32), rig.voice(3)])
    assert np.array_equal(generator._speech._samples[-len(heard) :], heard)
    assert not generator._speech._samples[: -len(heard)].any()
    # Far more than is remembered, and then back again: nothing breaks.
    generator.generate(rig.chunk(9, first_sample=10**12, is_discontinuous=True), rig.Writer())
    assert np.array_equal(generator._speech._samples[-rig.SAMPLES :], rig.voice(9))
    assert not generator._speech._samples[: -rig.SAMPLES].any()
    generator.generate(rig.chunk(1, is_discontinuous=True), rig.Writer())
    generator.generate(rig.chunk(2), rig.Writer())
    assert np.array_equal(generator._speech._samples[-2 * rig.SAMPLES :], np.concatenate([rig.voice(1), rig.voice(2)]))
