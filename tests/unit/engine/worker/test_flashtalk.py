"""What RankedFlashTalk makes of its options before any process is started."""

import inspect
from dataclasses import replace

import pytest

from engine.errors import DeviceError, UsageError
from engine.generators.base import SmallerSize
from engine.gpus.types import Gpu
from engine.model_store.gpu_memory import RankMemory
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream.scene import check_room
from engine.worker import flashtalk
from engine.worker.flashtalk import RankedFlashTalk

GB = 10**9


def _gpu(number, total_gb, free_gb, name="NVIDIA H100", capability=(9, 0)):
    return Gpu(
        index=number, system_index=number, uuid=f"GPU-{number}", name=name, total_bytes=int(total_gb * GB),
        free_bytes=int(free_gb * GB), compute_capability=capability, driver="550",
    )  # fmt: skip


def _gpus(count):
    return [_gpu(number, 80, 79) for number in range(count)]


@pytest.fixture
def these(monkeypatch):
    """Sets which GPUs there are; the checkpoint is the published one's numbers."""
    monkeypatch.setattr(flashtalk, "find_checkpoint", lambda *_: None)
    monkeypatch.setattr(flashtalk, "rank_memory", lambda _: RankMemory())
    return lambda *gpus: monkeypatch.setattr(flashtalk, "list_gpus", lambda: list(gpus))


@pytest.fixture
def machine(these):
    """Sets how many GPUs there are."""
    return lambda count: these(*_gpus(count))


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


# ------------------------------------------------------------------------------------- old GPUs beside new ones


@pytest.mark.parametrize("is_old_first", [True, False])
def test_a_gpu_that_is_too_old_is_no_obstacle_to_one_with_room_for_some_weights(these, is_old_first):
    numbers = (0, 1) if is_old_first else (1, 0)
    old = _gpu(numbers[0], 8, 8, "NVIDIA GTX 1080", (6, 1))
    new = _gpu(numbers[1], 24, 24, "NVIDIA RTX 4090", (8, 9))
    these(*sorted((old, new), key=lambda gpu: gpu.index))
    assert _decided(gpus="auto") == _decided(gpus="1") == (1, new.uuid)


# ---------------------------------------------------------------------------------- room beside a stream that runs


ON_ONE_GPU = [{}, {"device": "cuda"}, {"device": "cuda:0"}, {"gpus": "auto"}, {"gpus": "0,"}, {"gpus": 1}]


def _has_room(**options):
    generator = RankedFlashTalk(**{"size": "640x384", **options})
    generator.check()  # for some weights there is room in every one of these tests
    try:
        generator.check_room()
    except DeviceError as error:
        return error.code != "gpus.memory"
    return True


@pytest.mark.parametrize("options", ON_ONE_GPU)
def test_there_is_room_where_as_much_stays_on_the_gpu_as_if_it_were_free(these, options):
    these(_gpu(0, 48, 14))
    assert not _has_room(**options), "most blocks would be streamed for ever"
    these(_gpu(0, 80, 46))
    assert _has_room(**options)


@pytest.mark.parametrize("options", ON_ONE_GPU)
def test_where_not_all_weights_have_room_on_a_free_gpu_no_more_are_asked_for(these, options):
    for free_gb, has_room in ((25, True), (22.7, True), (14, False), (7, False)):
        these(_gpu(0, 25.7, free_gb))
        assert _has_room(**options) == has_room, free_gb


def test_room_is_that_for_the_blocks_that_were_chosen_to_stay(these):
    memory = RankMemory()
    for offload, needed in (("none", memory), ("10", memory.streaming(30))):
        needed_gb = needed.needed_bytes(height=640, width=384) / GB
        for free_gb, has_room in ((needed_gb + 0.01, True), (needed_gb - 0.01, False)):
            these(_gpu(0, 80, free_gb))
            assert _has_room(offload=offload) == has_room


def test_room_is_asked_of_the_gpu_that_is_taken(these):
    these(_gpu(0, 80, 79), _gpu(1, 80, 14))
    assert _has_room() and _has_room(device="cuda:0") and _has_room(gpus="0,")
    assert not _has_room(device="cuda:1") and not _has_room(gpus="1,") and not _has_room(gpus="0,1")
    assert _has_room(device="cuda:7"), "that it is not there is for the rank to say"


def test_room_on_fewer_gpus_than_could_share_the_work_is_not_enough(these):
    busy, free = [_gpu(number, 80, 14) for number in (0, 1)], [_gpu(number, 80, 79) for number in (2, 3)]
    these(*busy, *free)
    with pytest.raises(DeviceError, match="room for 2 ranks, where 4 could"):
        RankedFlashTalk(size="640x384", gpus="auto").check_room()
    assert _has_room(gpus="2"), "the other two"
    assert not _has_room(gpus="all")


def test_a_gpu_too_old_for_others_is_not_refused_for_want_of_room(these):
    these(_gpu(0, 80, 79, "NVIDIA RTX 8000", (7, 5)))
    assert _has_room()


@pytest.mark.parametrize("options", [{}, {"ranks": 2}, {"device": "cpu"}, {"ranks_at": "/run/door"}])
def test_where_no_gpu_of_this_machine_is_taken_there_is_room(these, options):
    these(*([_gpu(0, 48, 1)] if "device" in options or "ranks_at" in options else []))
    assert _has_room(**options)


def test_memory_that_is_not_known_is_taken_for_enough(these):
    these(replace(_gpu(0, 80, 1), free_bytes=None))
    assert _has_room() and _has_room(gpus="auto")


def test_named_gpus_that_are_gone_have_no_room(these):
    these()
    with pytest.raises(DeviceError):
        RankedFlashTalk(gpus="auto").check_room()


def test_the_pipeline_asks_for_room_in_this_way_unless_it_makes_do(these):
    these(_gpu(0, 48, 14))
    settings = SessionSettings(portrait="", generator=GeneratorSettings(name="flashtalk", options={"gpus": "auto"}))
    size = SmallerSize(name="640x384", cost=0.7, options={"size": "640x384"})
    with pytest.raises(DeviceError, match=r"14\.0 GB of memory free"):
        check_room(settings, size)
    check_room(settings, size, makes_do=True)
    check_room(SessionSettings(portrait=""), None)  # the puppet has no such question
