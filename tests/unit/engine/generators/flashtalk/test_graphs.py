"""Steps that run without the host: recorded on a tape that obeys the rules of a CUDA graph, or on a GPU."""

import logging
import math

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk import graphs as module  # noqa: E402
from engine.generators.flashtalk.attention import choose_attention  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.graphs import (  # noqa: E402
    CudaRecorder,
    GraphedCall,
    RecordsNothing,
    Stepper,
    wants_graphs,
)
from engine.generators.flashtalk.transformer import DiT  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

CONFIG = DiTConfig(
    dim=48, ffn_dim=64, freq_dim=32, num_heads=2, num_layers=3, text_dim=24, text_len=32, intermediate_dim=8,
    output_dim=40, context_tokens=6, img_emb_in_dim=32, audio_blocks=3, audio_channels=16,
)  # fmt: skip
STEPS, FRAMES, MOTION = 4, 4, 2


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Scene:
    """A small transformer, its conditions, and chunks of different voices."""

    def __init__(self, group=None, device="cpu"):
        torch.manual_seed(0)
        self.dit = DiT(CONFIG).to(device)
        for name, parameter in self.dit.named_parameters():
            if "modulation" in name:
                parameter.normal_()
        self.dit.pack_projections()
        self.device, self.group = torch.device(device), group or LocalGroup()
        self.attention = choose_attention(self.device, torch.float32)
        self.stream = self.dit.stream_conditions(
            _drawn(5, 24).to(device), _drawn(9, 32).to(device), _drawn(20, FRAMES, 6, 8).to(device),
            torch.linspace(1000, 200, STEPS).to(device), LocalGroup(),
        )  # fmt: skip
        self.stepper = Stepper(self.dit, self.stream, self.group, self.attention)

    def chunk(self, seed):
        first, later = _drawn(1, 5, 3, 16, seed=seed), _drawn(FRAMES - 1, 8, 3, 16, seed=seed + 100)
        return self.dit.chunk_conditions(first.to(self.device), later.to(self.device))

    def latents(self, seed):
        return _drawn(16, FRAMES, 6, 8, seed=seed).to(self.device)

    def plain(self, latents, step, chunk, motion=MOTION):
        return self.dit(latents, step, self.stream, chunk, LocalGroup(), self.attention, motion)

    def record(self, recorder):
        return self.stepper.record(self.chunk(0), self.latents(0), MOTION, recorder)


def test_recorded_steps_are_the_steps(tape_recorder):
    """Of other chunks, at every step, in any order: whatever changes goes in, and nothing else changes."""
    scene = Scene()
    assert scene.record(tape_recorder) and scene.stepper.is_recorded and tape_recorder.recorded == 1
    places, seen = set(), set()
    for number in (3, 4, 3):
        chunk = scene.chunk(number)
        velocity = scene.stepper.velocity(chunk, MOTION)
        for step in (0, 1, 2, 3, 1):
            latents = scene.latents(10 * number + step)
            got = velocity(latents, step)
            places.add(got.data_ptr())
            seen.add(got.sum().item())
            assert torch.equal(got, scene.plain(latents, step, chunk))
    assert len(places) == 1 and len(seen) == 8
    assert tape_recorder.recorded == 1 and tape_recorder.replays == 16  # one of them for the check


def test_two_chunks_at_once_do_not_mix(tape_recorder):
    scene = Scene()
    scene.record(tape_recorder)
    chunks = [scene.chunk(3), scene.chunk(4)]
    velocities = [scene.stepper.velocity(chunk, MOTION) for chunk in chunks]
    latents = scene.latents(5)
    for number in (0, 1, 0):
        assert torch.equal(velocities[number](latents, 2), scene.plain(latents, 2, chunks[number]))


def test_the_first_chunk_has_another_shape_and_runs_as_it_is(tape_recorder):
    scene = Scene()
    scene.record(tape_recorder)
    replays, chunk, latents = tape_recorder.replays, scene.chunk(3), scene.latents(5)
    got = scene.stepper.velocity(chunk, 1)(latents, 0)
    assert torch.equal(got, scene.plain(latents, 0, chunk, motion=1)) and tape_recorder.replays == replays


def test_without_a_recording_steps_run_as_they_are():
    scene = Scene()
    chunk, latents = scene.chunk(3), scene.latents(5)
    got = scene.stepper.velocity(chunk, MOTION)(latents, 0)
    assert torch.equal(got, scene.plain(latents, 0, chunk)) and not scene.stepper.is_recorded


def _refused(scene, recorder, caplog):
    with caplog.at_level(logging.WARNING):
        assert not scene.record(recorder)
    assert not scene.stepper.is_recorded and scene.stepper.refused in caplog.text and len(caplog.records) == 1
    chunk, latents = scene.chunk(3), scene.latents(5)
    assert torch.equal(scene.stepper.velocity(chunk, MOTION)(latents, 1), scene.plain(latents, 1, chunk))
    return scene.stepper.refused


class _Waits(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) if x.abs().max().item() > 0 else x


class _Counts(torch.nn.Module):
    """Depends on how often it was called, which a recording cannot."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.calls = layer, 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (1 + self.calls % 2)


@pytest.mark.parametrize(("layer", "reason"), [(_Waits, "read on the host"), (_Counts, "off by")])
def test_a_step_that_cannot_be_recorded_runs_as_it_is(layer, reason, tape_recorder, caplog):
    scene = Scene()
    attention = scene.dit.blocks[1].cross_attn
    plain = attention.o
    attention.o = layer(plain)
    with caplog.at_level(logging.WARNING):
        assert not scene.record(tape_recorder)
    assert reason in scene.stepper.refused and scene.stepper.refused in caplog.text
    assert not scene.stepper.is_recorded


def test_a_recorder_that_fails_is_told(caplog):
    class Failing:
        def record(self, work):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    reason = _refused(Scene(), Failing(), caplog)
    assert reason == "CUDA error: operation not permitted when stream is capturing"


def test_a_rank_without_room_tells_the_others():
    """It meets them where they compare, and none of them has a graph then."""
    told = []

    class Two(_Group):
        def share(self, owner, make, like):
            told.append(bool(make()[0].item()) if owner == self.rank else None)
            return super().share(owner, make, like)

    scene = Scene(Two(size=2))
    assert not scene.record(RecordsNothing("there is no room")) and scene.stepper.refused == "there is no room"
    assert told == [False, None]


def test_a_recording_that_computes_something_else_is_found_out(tape_recorder, caplog):
    class Stale:
        """Reads one of its arguments only once."""

        def record(self, work):
            out, replay = tape_recorder.record(work)
            replay()
            first = out.clone()

            def again():
                out.copy_(first)

            return out, again

    assert "off by" in _refused(Scene(), Stale(), caplog)


def test_numbers_that_are_none_do_not_pass(tape_recorder, caplog):
    class Unfilled:
        def record(self, work):
            return tape_recorder.record(work)[0], lambda: None

    assert "nan" in _refused(Scene(), Unfilled(), caplog)


class _Group(LocalGroup):
    def __init__(self, size=1, is_capturable=True, others=1):
        self.size, self.is_capturable, self.others = size, is_capturable, others

    def share(self, owner, make, like):
        return make() if owner == self.rank else tuple(torch.full_like(x, self.others) for x in like)


def test_collectives_that_cannot_be_recorded_are_not(tape_recorder, caplog):
    assert "collectives" in _refused(Scene(_Group(is_capturable=False)), tape_recorder, caplog)
    assert tape_recorder.recorded == 0


def test_all_ranks_have_a_graph_or_none(tape_recorder, caplog):
    assert Scene(_Group(size=2)).record(tape_recorder)
    replays, scene = tape_recorder.replays, Scene(_Group(size=2, others=0))
    with caplog.at_level(logging.WARNING):
        assert not scene.record(tape_recorder)
    assert "another rank" in scene.stepper.refused and tape_recorder.replays == replays


def test_any_function_of_tensors_can_be_recorded(tape_recorder):
    """One that keeps a state in place, too, as a decoder's history is."""
    history = torch.zeros(3)

    def function(x, y):
        history.mul_(0.5).add_(x)
        return torch.cat((history, y.t().sum(0)))

    call = GraphedCall(function, (torch.ones(3), torch.ones(2, 4)), tape_recorder)
    history.zero_()
    wanted = torch.zeros(3)
    for seed in range(3):
        x, y = _drawn(3, seed=seed), _drawn(2, 4, seed=seed)
        wanted = 0.5 * wanted + x
        torch.testing.assert_close(call(x, y), torch.cat((wanted, y.sum(1))))


def test_without_a_word_no_graph_is_recorded(monkeypatch):
    gpu = torch.device("cuda")
    assert [wants_graphs(choice, gpu) for choice in module.CHOICES] == [False, True, False]
    assert not any(wants_graphs(choice, torch.device("cpu")) for choice in module.CHOICES)
    monkeypatch.setattr(module, "_PROVEN", True)
    assert wants_graphs("auto", gpu) and not wants_graphs("off", gpu)


@pytest.mark.gpu
def test_steps_run_from_a_cuda_graph():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene = Scene(device="cuda")
    assert scene.record(CudaRecorder(scene.device)), scene.stepper.refused
    for number in (3, 4):
        chunk = scene.chunk(number)
        for step in range(STEPS):
            latents = scene.latents(10 * number + step)
            got, wanted = scene.stepper.velocity(chunk, MOTION)(latents, step), scene.plain(latents, step, chunk)
            error = ((got - wanted).abs().max() / wanted.abs().max()).item()
            assert not math.isnan(error) and error < 1e-5
