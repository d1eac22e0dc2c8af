"""The bench counts what it says it counts, and runs from a small checkpoint."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import GeneratorError, UsageError
from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.bench import BenchSettings, Stopwatch, bench, random_conditions, step_flops
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.transformer import DiT
from engine.parallel.group import LocalGroup


class Quiet:
    def update(self, stage, done, total, unit=""):
        pass


@pytest.mark.parametrize(("size", "tera"), [((768, 448), 467.75), ((640, 384), 309.75), ((512, 512), 334.75)])
def test_flop_of_a_step_are_those_of_the_specification(size, tera):
    """Its table 9.2: a chunk of four steps with everything hoisted takes 1871, 1239 and 1339 TFLOP. All 512 text keys
    are in there, of which 24 are enough."""
    shape = StreamShape(height=size[0], width=size[1])
    padding_keys = 4 * shape.tokens * (512 - 24) * 5120 * 40
    assert (step_flops(DiTConfig(), shape) + padding_keys) / 1e12 == pytest.approx(tera, rel=2e-3)


def test_flop_of_a_step_are_those_that_torch_counts():
    config = DiTConfig(dim=64, ffn_dim=96, num_heads=4, num_layers=2, freq_dim=32, text_dim=24, output_dim=48)
    shape = StreamShape(height=64, width=48)
    dit = DiT(config).eval()
    conditions = random_conditions(dit, shape, 1, torch.device("cpu"))
    audio = dit.chunk_conditions(torch.randn(1, 5, 12, 768), torch.randn(8, 8, 12, 768))
    backend = choose_attention(torch.device("cpu"), torch.float32)
    # Of the kernels for a CPU it knows this one alone.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        dit(torch.randn(shape.latent), 0, conditions, audio, LocalGroup(), backend)
    ends = 2 * shape.tokens * config.dim * (64 + 64)  # patch embedding and head, which the figure leaves out
    assert counter.get_total_flops() - ends == pytest.approx(step_flops(config, shape), rel=1e-6)


def test_report_of_a_small_checkpoint(tiny_checkpoint):
    model, speech = tiny_checkpoint
    settings = BenchSettings(
        checkpoint=str(model), speech_encoder=str(speech), size="32x32", steps=2, chunks=2, device="cpu"
    )
    report = bench(settings, Quiet())
    stages = report["stages_s"]
    assert list(stages) == ["audio", "step 1", "step 2", "decode", "colour", "copy out", "encode"]
    assert report["frames_per_s"] > 0 and report["roofline"]["matrix_tflop_per_s"] > 0
    assert 0 < report["first_frame_s"]["median"] <= report["chunk_s"]["median"]


def test_stages_add_up_to_the_chunk():
    watch = Stopwatch(torch.device("cpu"))
    watch.begin()
    for stage in ("a", "b", "a", "c"):
        torch.ones(200, 200).sum()
        watch.mark(stage, is_frame=stage == "b")
    watch.end(is_counted=True)
    assert watch.stages == ["a", "b", "c"]
    assert sum(watch.summary(stage)["median"] for stage in watch.stages) == pytest.approx(
        watch.summary("chunk")["median"], abs=2e-4
    )
    assert watch.summary("first frame")["median"] <= watch.summary("chunk")["median"]


def test_bad_wishes_are_refused():
    with pytest.raises(UsageError):
        bench(BenchSettings(chunks=0), Quiet())
    if not torch.cuda.is_available():
        with pytest.raises(GeneratorError, match="GPU"):
            bench(BenchSettings(), Quiet())
