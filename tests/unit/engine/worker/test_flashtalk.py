"""What RankedFlashTalk makes of its options before any process is started."""

import inspect

import pytest

from engine.errors import DeviceError, UsageError
from engine.gpus.types import Gpu
from engine.model_store.gpu_memory import RankMemory
from engine.worker import flashtalk
from engine.worker.flashtalk import RankedFlashTalk


def _gpus(count):
    return [
        Gpu(
            index=number, system_index=number, uuid=f"GPU-{number}", name="NVIDIA H100", total_bytes=80 * 10**9,
            free_bytes=79 * 10**9, compute_capability=(9, 0), driver="550",
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture
def machine(monkeypatch):
    """Sets how many GPUs there are; the checkpoint is the published one's numbers."""
    monkeypatch.setattr(flashtalk, "find_checkpoint", lambda *_: None)
    monkeypatch.setattr(flashtalk, "rank_memory", lambda _: RankMemory())
    return lambda count: monkeypatch.setattr(flashtalk, "list_gpus", lambda: _gpus(count))


def _decided(**options):
    settings = RankedFlashTalk(**options)._decided()
    return settings.ranks, settings.gpus


def test_it_has_every_option_of_the_generator_in_the_ranks():
    pytest.importorskip("torch")
    from engine.generators.flashtalk.generator import FlashTalkGenerator

    inner = inspect.signature(FlashTalkGenerator).parameters
    outer = inspect.signature(RankedFlashTalk).parameters
    assert set(inner) - {"group"} <= set(outer)
    for name in set(inner) - {"group", "prompt"}:
        assert inner[name].default == outer[name].default, name


def test_the_picture_is_known_before_anything_runs():
    spec = RankedFlashTalk(size="640x384").spec
    assert (spec.width, spec.height, spec.chunk.frames, spec.chunk.fps) == (384, 640, 28, 25)
    assert not spec.follows_canvas


@pytest.mark.parametrize(
    ("options", "ranks", "gpus"),
    [
        ({}, 1, ""),
        ({"device": "cpu", "ranks": 3}, 3, ""),
        ({"device": "cuda:1"}, 1, ""),
        ({"gpus": "auto"}, 4, "GPU-0,GPU-1,GPU-2,GPU-3"),
        ({"gpus": "3,1"}, 2, "GPU-3,GPU-1"),
        ({"gpus": "2,"}, 1, "GPU-2"),
        ({"gpus": 2}, 2, "GPU-0,GPU-1"),
        ({"ranks": 2}, 2, "GPU-0,GPU-1"),
        ({"ranks": 2, "gpus": "auto"}, 2, "GPU-0,GPU-1"),
        ({"ranks": 2, "gpus": "0,3"}, 2, "GPU-0,GPU-3"),
        ({"ranks_at": "/run/door", "gpus": "0,3"}, 1, ""),
    ],
)
def test_which_ranks_run_where(machine, options, ranks, gpus):
    machine(4)
    assert _decided(**options) == (ranks, gpus)


def test_ranks_without_a_gpu_share_the_cpu(machine):
    machine(0)
    assert _decided(ranks=2) == (2, "")


def test_named_gpus_that_are_not_there_are_an_error_before_anything_starts(machine):
    machine(0)
    with pytest.raises(DeviceError):
        RankedFlashTalk(gpus="auto").check()
    machine(2)
    with pytest.raises(UsageError, match="There is no GPU 5"):
        RankedFlashTalk(gpus="0,5").check()


@pytest.mark.parametrize(
    "options",
    [
        {"ranks": 0},
        {"ranks": -1},
        {"ranks": 2, "device": "cuda:1"},
        {"gpus": "0,1", "device": "cpu"},
        {"size": "big"},
        {"fps": 30},
    ],
)
def test_what_cannot_be_is_refused_at_once(options):
    with pytest.raises(UsageError):
        RankedFlashTalk(**options)


def test_more_ranks_than_gpus_named_is_refused(machine):
    machine(4)
    with pytest.raises(UsageError, match="3 ranks cannot use 2 GPUs"):
        RankedFlashTalk(ranks=3, gpus="0,1").check()


def test_two_streams_with_the_same_options_share_a_group():
    one, two = (RankedFlashTalk(gpus="auto", prompt="A person.") for _ in range(2))
    assert one._settings == two._settings and hash(one._settings) == hash(two._settings)
    assert one._settings != RankedFlashTalk(gpus="auto", seed=1)._settings
