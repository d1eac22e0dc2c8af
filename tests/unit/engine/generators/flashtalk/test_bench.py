"""The bench counts what it says it counts, and runs from a small checkpoint and from random weights."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import GeneratorError, UsageError
from engine.generators.flashtalk.bench import BenchSettings, bench
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.options import FlashTalkOptions
from engine.generators.flashtalk.random_models import Sizes, random_features, random_models
from engine.generators.flashtalk.roofline import step_flops
from engine.generators.flashtalk.sampler import Schedules
from engine.generators.flashtalk.speech_encoder import SpeechEncoderConfig
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.media import AudioChunk
from engine.parallel.group import LocalGroup

CPU = torch.device("cpu")
SMALL = DiTConfig(
    dim=64, ffn_dim=96, num_heads=4, num_layers=2, freq_dim=32, text_dim=24, output_dim=48, audio_channels=32
)
SPEECH = SpeechEncoderConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
SIZES = Sizes(config=SMALL, vae=VaeConfig(dim=8), speech=SPEECH)


@pytest.mark.parametrize(("size", "tera"), [((768, 448), 467.75), ((640, 384), 309.75), ((512, 512), 334.75)])
def test_flop_of_a_step_are_those_of_the_specification(size, tera):
    """Its table 9.2: a chunk of four steps with everything hoisted takes 1871, 1239 and 1339 TFLOP. All 512 text keys
    are in there, of which 24 are enough."""
    shape = StreamShape(height=size[0], width=size[1])
    padding_keys = 4 * shape.tokens * (512 - 24) * 5120 * 40
    assert (step_flops(DiTConfig(), shape) + padding_keys) / 1e12 == pytest.approx(tera, rel=2e-3)


@pytest.fixture
def small(monkeypatch):
    """Random models of a few kilobytes."""

    def make(**options):
        wanted = FlashTalkOptions.of({"size": "64x48", "device": "cpu", "chunk": 17, **options})
        return wanted, random_models(wanted, CPU, SIZES)

    return make


def test_flop_of_a_step_are_those_that_torch_counts(small):
    options, models = small()
    shape = options.shape
    _portrait, text, image = random_features(SMALL, shape, CPU)
    y = torch.randn(20, *shape.latent[1:])
    with torch.no_grad():
        conditions = models.dit.stream_conditions(text, image.squeeze(0), y, Schedules((4,)).table, LocalGroup())
        audio = models.dit.chunk_conditions(torch.randn(1, 5, 12, 32), torch.randn(shape.latent[1] - 1, 8, 12, 32))
        # Of the kernels for a CPU it knows this one alone.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            models.dit(torch.randn(shape.latent), 0, conditions, audio, LocalGroup(), models.attention)
    ends = 2 * shape.tokens * SMALL.dim * (64 + 64)  # patch embedding and head, which the figure leaves out
    assert counter.get_total_flops() - ends == pytest.approx(step_flops(SMALL, shape), rel=0.02)


def test_report_of_a_small_checkpoint(tiny_checkpoint, quiet):
    model, speech = tiny_checkpoint
    options = {
        "checkpoint": str(model), "speech_encoder": str(speech), "size": "32x32", "steps": 2, "device": "cpu"
    }  # fmt: skip
    report = bench(BenchSettings(options=options, chunks=2), quiet)
    stages = report["stages_s"]
    assert {"audio", "step 1", "step 2", "decode", "colour", "copy out", "re-encode"} == set(stages)
    assert report["frames_per_s"] > 0 and report["roofline"]["matrix_tflop_per_s"] > 0
    assert 0 < report["first_frame_s"]["median"] <= report["chunk_s"]["median"]
    assert report["delay_s"] >= report["heard_s"] == 1.12
    spent = sum(figure["median"] for figure in stages.values())
    assert spent == pytest.approx(report["chunk_s"]["median"], rel=0.5)


@pytest.mark.parametrize("wish", [{}, {"precision": "int8"}, {"precision": "fp8", "offload": 0}])
def test_random_models_make_pictures(small, wish):
    options, models = small(**wish)
    generator = FlashTalkGenerator(seed=0, **options.as_dict())
    with torch.no_grad():
        generator.prepare_from(models, *random_features(SMALL, options.shape, CPU))
    frames = _Frames((options.shape.height, options.shape.width))
    samples = torch.randn(options.shape.chunk_samples).numpy()
    for index in range(2):
        count = options.shape.new_frames
        generator.generate(
            AudioChunk(first_frame=index * count, frames=count, first_sample=index * len(samples), samples=samples),
            frames,
        )
    assert generator.recoveries == 0, "a stream that is begun anew with every chunk is another one than people get"
    generator.close()
    assert frames.numbers == list(range(2 * options.shape.new_frames))
    assert frames.image.std() > 1, "random weights, and no grey"


class _Frames:
    def __init__(self, size):
        import numpy as np

        self.image, self.numbers = np.zeros((*size, 3), np.uint8), []

    def next_image(self):
        return self.image

    def commit(self, frame):
        self.numbers.append(frame)


def test_report_of_random_models(quiet):
    options = {"size": "64x48", "chunk": 17, "steps": 3, "precision": "int8", "offload": 1}
    report = bench(BenchSettings(options=options, chunks=1), quiet, SIZES)
    assert report["weights"] == "random" and report["streamed_blocks"] == 1
    assert [stage for stage in report["stages_s"] if stage.startswith("step")] == ["step 1", "step 2", "step 3"]
    assert report["heard_s"] == 0.48


def test_bad_wishes_are_refused(quiet):
    with pytest.raises(UsageError):
        bench(BenchSettings(chunks=0), quiet)
    if not torch.cuda.is_available():
        with pytest.raises(GeneratorError, match="GPU"):
            bench(BenchSettings(), quiet)
