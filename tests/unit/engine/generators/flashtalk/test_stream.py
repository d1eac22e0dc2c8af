"""A stream: what it gives for a chunk, what it keeps for the next one, and that it shares nothing else."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.attention import choose_attention  # noqa: E402
from engine.generators.flashtalk.color import ColorMatch  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig, StreamShape  # noqa: E402
from engine.generators.flashtalk.noise import SeededNoise  # noqa: E402
from engine.generators.flashtalk.sampler import Schedules, denoise, timesteps  # noqa: E402
from engine.generators.flashtalk.small_decoder import SmallDecoder  # noqa: E402
from engine.generators.flashtalk.stream import FlashTalkStream, make_anchor, to_bytes  # noqa: E402
from engine.generators.flashtalk.transformer import DiT  # noqa: E402
from engine.generators.flashtalk.vae import Vae  # noqa: E402
from engine.generators.flashtalk.vae_coders import VaeConfig  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

CONFIG = DiTConfig(
    dim=48, ffn_dim=64, freq_dim=32, num_heads=2, num_layers=2, text_dim=24, text_len=32, intermediate_dim=8,
    output_dim=40, context_tokens=6, img_emb_in_dim=32, audio_blocks=3, audio_channels=16,
)  # fmt: skip
SHAPE = StreamShape(height=32, width=48, frames=13)
ATTENTION = choose_attention(torch.device("cpu"), torch.float32)
SCHEDULES = Schedules((4, 3, 2))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _filled(module, seed: int):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        is_vector = parameter.dim() <= 1 or name.endswith("gamma")
        if is_vector:
            value = 0.1 * value + (1.0 if name.endswith(("gamma", "weight")) else 0.0)
        elif "modulation" in name:
            value = 0.5 * value
        else:
            value = value / parameter[0].numel() ** 0.5
        parameter.data = value
    return module.eval()


@pytest.fixture(scope="module")
def models() -> tuple[DiT, Vae]:
    return _filled(DiT(CONFIG), 1), _filled(Vae(VaeConfig(dim=8)), 2)


def _portrait(seed: int = 0):
    """Soft blobs in colour: [1, 3, 1, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 6, generator=generator) * 1.6 - 0.8
    size = (SHAPE.height, SHAPE.width)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").unsqueeze(2)


class Line:
    """A stream with its noise and its voice, run chunk by chunk."""

    def __init__(self, models, *, seed: int = 0, portrait: int = 0, voice: int = 0) -> None:
        dit, vae = models
        self.anchor = make_anchor(_portrait(portrait), vae, SHAPE)
        generator = torch.Generator().manual_seed(10 + portrait)
        text, image = torch.randn(5, 24, generator=generator), torch.randn(9, 32, generator=generator)
        self.features = text, image
        self.conditions = dit.stream_conditions(text, image, self.anchor.y, SCHEDULES.table, LocalGroup())
        self.noise = SeededNoise(seed, SHAPE.latent, "cpu")
        self.dit, self.voice = dit, voice
        self.stream = FlashTalkStream(
            dit=dit, vae=vae, conditions=self.conditions, anchor=self.anchor, shape=SHAPE, schedules=SCHEDULES,
            noise=self.noise, group=LocalGroup(), attention=ATTENTION,
        )  # fmt: skip

    def heard(self):
        generator = torch.Generator().manual_seed(1000 * self.voice + self.noise.chunk)
        return self.dit.chunk_conditions(
            torch.randn(1, 5, 3, 16, generator=generator), torch.randn(3, 8, 3, 16, generator=generator)
        )

    def chunk(self) -> np.ndarray:
        """The next chunk's frames as bytes."""
        groups = list(self.stream.frames(self.stream.chunk_latents(self.heard())))
        self.noise.chunk += 1
        return torch.cat([to_bytes(matched) for _, matched in groups]).numpy()

    def reset(self) -> None:
        self.stream.reset()
        self.noise.chunk = 0


# ----------------------------------------------------------------------------------- the anchor


def test_the_anchor_is_the_portrait_before_mid_grey(models):
    vae, portrait = models[1], _portrait()
    anchor = make_anchor(portrait, vae, SHAPE)
    grey = torch.zeros(1, 3, SHAPE.frames - 1, SHAPE.height, SHAPE.width)
    assert torch.equal(anchor.y[4:], vae.encode(torch.cat((portrait, grey), dim=2)))
    assert anchor.y.shape == (20, 4, 4, 6)
    assert (anchor.y[:4, 0] == 1).all() and (anchor.y[:4, 1:] == 0).all()


def test_the_first_motion_is_the_portrait_encoded_alone(models):
    portrait = _portrait()
    torch.testing.assert_close(make_anchor(portrait, models[1], SHAPE).motion, models[1].encode(portrait))


# ----------------------------------------------------------------------------------- one chunk


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_chunk_is_what_the_spec_makes_of_it(models, chunks):
    """Sample, decode all, match all, drop five, encode the last five (specification, 7.3)."""
    line, (dit, vae) = Line(models), models
    for _ in range(chunks - 1):
        line.chunk()
    motion, heard = line.stream.motion, line.heard()
    assert motion.shape[1] == (1 if chunks == 1 else 2)

    def velocity(latents, step):
        return dit(latents, step, line.conditions, heard, LocalGroup(), ATTENTION)

    latents = denoise(velocity, line.noise, motion, SCHEDULES.first.timesteps)
    assert torch.equal(line.stream.chunk_latents(heard), latents)
    assert torch.equal(line.stream.motion, motion)
    decoded = vae.decode_all(latents)
    assert decoded.std() > 0.05 and (decoded.abs() == 1).float().mean() < 0.5  # a picture, nothing clipped flat
    matched = ColorMatch(_portrait()).apply(decoded)
    groups = list(line.stream.frames(latents))
    assert [raw.shape[2] for raw, _ in groups] == [4, 4]
    torch.testing.assert_close(torch.cat([raw for raw, _ in groups], dim=2), decoded[:, :, 5:])
    torch.testing.assert_close(torch.cat([m for _, m in groups], dim=2), matched[:, :, 5:], rtol=0, atol=1e-4)
    torch.testing.assert_close(line.stream.motion, vae.encode(matched[:, :, -5:]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("frames", "motion", "sizes"),
    [(33, 5, [4] * 7), (33, 1, [4] * 8), (9, 5, [4]), (33, 9, [4] * 6), (13, 9, [4])],
)
def test_every_chunk_gives_its_new_frames_in_groups_of_a_latent(models, frames, motion, sizes):
    """And the motion is made of the last ones, wherever they lie in the groups."""

    class Counting:
        """A decoder whose frames carry their number."""

        def decode(self, latents, **_):
            numbers = torch.arange(frames, dtype=torch.float32).view(1, 1, -1, 1, 1).expand(1, 3, -1, 8, 8)
            yield from numbers.split([1] + [4] * ((frames - 1) // 4), dim=2)

        def encode(self, video, **_):
            return video[0, 0, :, 0, 0]

    line = Line(models)
    stream = FlashTalkStream(
        dit=models[0], vae=Counting(), conditions=line.conditions, anchor=line.anchor,
        shape=StreamShape(height=32, width=48, frames=frames, motion_frames=motion), schedules=SCHEDULES,
        noise=line.noise, group=LocalGroup(), attention=ATTENTION, color_strength=0.0,
    )  # fmt: skip
    groups = [matched[0, 0, :, 0, 0].tolist() for _, matched in stream.frames(torch.zeros(1))]
    assert [len(group) for group in groups] == sizes
    assert sum(groups, []) == list(range(motion, frames))  # noqa: RUF017 - short lists
    assert stream.motion.tolist() == list(range(frames - motion, frames))


def test_frames_leave_before_the_rest_is_decoded(models):
    line, decoded = Line(models), []

    class Watching:
        def decode(self, latents, **_):
            for frames in models[1].decode(latents):
                decoded.append(frames.shape[2])
                yield frames

        def encode(self, video, **_):
            return models[1].encode(video)

    latents = line.stream.chunk_latents(line.heard())
    line.stream._vae = Watching()
    groups = line.stream.frames(latents)
    next(groups)
    assert decoded == [1, 4, 4]
    list(groups)
    assert decoded == [1, 4, 4, 4]


@pytest.mark.parametrize("steps", [4, 3, 2])
@pytest.mark.parametrize("chunks", [0, 1])
def test_a_chunk_in_fewer_steps_is_that_of_a_stream_made_for_them(models, steps, chunks):
    """From the same state, and what follows is the same again; also to the spec's letter: its own table, its rows."""
    line, (dit, _) = Line(models), models
    for _ in range(chunks):
        line.chunk()
    heard, own = line.heard(), timesteps(steps)
    alone = dit.stream_conditions(*line.features, line.anchor.y, own[:-1], LocalGroup())

    def velocity(latents, step):
        return dit(latents, step, alone, heard, LocalGroup(), ATTENTION)

    wanted = denoise(velocity, line.noise, line.stream.motion, own)
    got = line.stream.chunk_latents(heard, steps)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert steps == 4 or (got - line.stream.chunk_latents(heard)).abs().max() > 1e-2


# ----------------------------------------------------------------------------------- streams and themselves


def test_two_streams_on_the_same_models_do_not_disturb_each_other(models):
    def lines():
        return Line(models, seed=1, portrait=0, voice=0), Line(models, seed=2, portrait=1, voice=1)

    apart = [[line.chunk() for _ in range(3)] for line in lines()]
    one, other = lines()
    together: list[list[np.ndarray]] = [[], []]
    for _ in range(3):
        together[0].append(one.chunk())
        together[1].append(other.chunk())
    assert np.array_equal(apart, together)
    assert not np.array_equal(*together)
    # Even within a chunk, group by group.
    one, other = lines()
    halves = [line.stream.frames(line.stream.chunk_latents(line.heard())) for line in (one, other)]
    mixed = [[to_bytes(matched) for _, matched in pair] for pair in zip(*halves, strict=True)]
    for number in range(2):
        assert np.array_equal(torch.cat([pair[number] for pair in mixed]).numpy(), apart[number][0])


def test_a_stream_that_is_reset_begins_again(models):
    line = Line(models)
    first = [line.chunk() for _ in range(2)]
    assert not np.array_equal(*first)
    line.reset()
    assert line.stream.motion.shape[1] == 1
    assert np.array_equal([line.chunk() for _ in range(2)], first)


def test_the_same_seed_is_the_same_frames_and_another_is_not(models):
    frames = [Line(models, seed=seed).chunk() for seed in (5, 5, 6)]
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_the_picture_depends_on_the_motion_before(models):
    """The second chunk after a reset of the motion alone is another one than it would have been."""
    line, cut = Line(models), Line(models)
    line.chunk()
    cut.chunk()
    cut.stream.reset()
    assert not np.array_equal(line.chunk(), cut.chunk())


# ----------------------------------------------------------------------------------- graphs


def test_a_recorded_stream_is_the_same_stream(models, tape_recorder):
    """Its frames as they leave the decoder, which are not to change afterwards; also after a chunk left halfway."""
    plain, recorded = Line(models), Line(models)
    assert recorded.stream.record(tape_recorder) == "" and tape_recorder.recorded == 3
    for line in (plain, recorded):
        line.stream._strength = 0.0
    for _ in range(2):
        assert np.array_equal(recorded.chunk(), plain.chunk())
        assert torch.equal(recorded.stream.motion, plain.stream.motion)
    latents = recorded.stream.chunk_latents(recorded.heard())
    groups = recorded.stream.frames(latents)
    first = next(groups)
    kept = [part.clone() for part in first]
    list(plain.stream.frames(latents))
    assert len(list(groups)) == 1 and all(map(torch.equal, first, kept))
    assert torch.equal(recorded.stream.motion, plain.stream.motion)
    next(recorded.stream.frames(latents))
    plain.reset()
    recorded.reset()
    assert np.array_equal(recorded.chunk(), plain.chunk())


def test_bands_and_the_end_alone_are_decoded_as_they_are(models, tape_recorder):
    """What ranks pass on to each other is not recorded, nor what is of another shape at every latent frame."""
    for part in ("_bands", "_small"):
        line = Line(models)
        setattr(line.stream, part, object())
        assert line.stream.record(tape_recorder) == "" and line.stream._recorded is None
    assert tape_recorder.recorded == 2


# ----------------------------------------------------------------------------------- the small decoder


def test_the_small_decoder_gives_pixels_and_the_vae_the_motion(models):
    """With it, the next chunk continues from the same latents as without; only what is shown is another picture."""
    small = _filled(SmallDecoder((24, 16, 8, 8)), 3)
    plain, line, nearly = (Line(models) for _ in range(3))
    line.stream._small = nearly.stream._small = small
    nearly.stream._context = 3
    latents = line.stream.chunk_latents(line.heard())
    groups = line.stream.frames(latents)
    shown = [next(groups), next(groups)]
    assert line.stream.motion.shape[1] == 1  # frames leave before anything is done for the next chunk
    assert not list(groups)
    wanted = torch.cat(list(small.decode(latents)), dim=2)[:, :, 5:]
    assert torch.equal(torch.cat([raw for raw, _ in shown], dim=2), wanted)
    matched = ColorMatch(_portrait()).apply(wanted)
    torch.testing.assert_close(torch.cat([m for _, m in shown], dim=2), matched, rtol=0, atol=1e-5)
    plain.chunk()
    torch.testing.assert_close(line.stream.motion, plain.stream.motion, rtol=0, atol=1e-4)
    nearly.chunk()
    assert (nearly.stream.motion - plain.stream.motion).abs().max() > 1e-3


# ----------------------------------------------------------------------------------- to bytes


def test_bytes_are_cut_off_not_rounded():
    values = np.array([-1.5, -1.0, -0.999, -0.5, 0.0, 1 / 255, 0.5, 0.9999, 1.0, 1.5], np.float32)
    frames = torch.from_numpy(values).view(1, 1, 1, 1, -1).expand(1, 3, 1, 1, -1)
    wanted = np.floor(np.clip((values.astype(np.float64) + 1) / 2, 0, 1) * 255).astype(int)
    got = to_bytes(frames)
    assert got.dtype == torch.uint8 and got.shape == (1, 1, 10, 3)
    assert got[0, 0, :, 0].tolist() == wanted.tolist()
    assert wanted.tolist() == [0, 0, 0, 63, 127, 128, 191, 254, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_frames_of_rows_of_pixels(dtype):
    frames = (torch.arange(2 * 4 * 5 * 3).reshape(1, 3, 2, 4, 5) / 60.0 - 1).to(dtype)
    got = to_bytes(frames)
    assert got.shape == (2, 4, 5, 3) and got.is_contiguous()
    for t, r, c, k in ((0, 0, 0, 0), (1, 3, 4, 2), (0, 2, 1, 1), (1, 0, 3, 0)):
        assert got[t, r, c, k] == int((frames[0, k, t, r, c].float().item() + 1) / 2 * 255)
