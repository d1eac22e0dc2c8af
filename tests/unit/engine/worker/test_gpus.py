"""Which GPUs are chosen on machines of many kinds, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import DeviceError, UsageError
from engine.gpus.types import Gpu
from engine.model_store.gpu_memory import RankMemory
from engine.worker.gpus import choose_gpus, choose_gpus_for

GB = 10**9
MEMORY = RankMemory()


def _gpus(
    count: int, *, free_gb: float = 80, first: int = 0, name: str = "NVIDIA H100", capability=(9, 0)
) -> list[Gpu]:
    return [
        Gpu(
            index=number,
            system_index=number,
            uuid=f"GPU-{number:04d}",
            name=name,
            total_bytes=85 * GB,
            free_bytes=int(free_gb * GB),
            compute_capability=capability,
            driver="550",
        )
        for number in range(first, first + count)
    ]


def _linked(gpus: list[Gpu], kinds: dict[tuple[int, int], str], other: str = "SYS") -> list[Gpu]:
    def kind(one: int, two: int) -> str:
        return kinds.get((min(one, two), max(one, two)), other)

    return [
        replace(gpu, links={peer.index: kind(gpu.index, peer.index) for peer in gpus if peer is not gpu})
        for gpu in gpus
    ]


def _choose(wanted: str, gpus, needed=36 * GB, **changes):
    choice = choose_gpus(wanted, gpus, needed_bytes=needed, **changes)
    return [gpu.index for gpu in choice.gpus], choice


@pytest.mark.parametrize(
    ("there", "world"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 4), (8, 8), (10, 8), (16, 8)]
)
def test_auto_takes_a_number_that_heads_and_tokens_divide_by(there, world):
    chosen, choice = _choose("auto", _gpus(there))
    assert len(chosen) == world == choice.plan.ulysses and choice.plan.padding == 0
    assert ("because 40 heads and 12096 tokens divide by" in choice.sentence) == (there > world)
    assert choice.warnings == ()


def test_auto_follows_the_picture():
    # 720x416 has 10530 = 2 * 3^4 * 5 * 13 tokens, which 10 ranks share with 40 heads, and 8 and 4 do not.
    assert len(_choose("auto", _gpus(10), tokens=10530, latent_rows=90)[0]) == 10
    assert len(_choose("auto", _gpus(8), tokens=10530, latent_rows=90)[0]) == 5
    assert len(_choose("auto", _gpus(8), latent_rows=2)[0]) == 2


def test_auto_takes_an_uneven_number_rather_than_none():
    chosen, choice = _choose("auto", _gpus(3, free_gb=33), needed=lambda world: (40 - 2 * world - (world > 2)) * GB)
    assert chosen == [0, 1, 2] and choice.plan.ring == 3
    assert choice.warnings == ("3 ranks do not share the work evenly; 1 and 2 would.",)


def test_auto_leaves_out_what_is_busy_and_says_so():
    gpus = _gpus(4)
    gpus[1] = replace(gpus[1], free_bytes=2 * GB)
    chosen, choice = _choose("auto", gpus)
    assert len(chosen) == 2 and 1 not in chosen
    assert choice.warnings == (
        "GPU 1 (NVIDIA H100) is left out: it has 2.0 GB of memory free, and 36.0 GB are needed.",
    )


def test_auto_keeps_to_one_kind_and_takes_the_faster():
    gpus = _gpus(2, name="NVIDIA A100", capability=(8, 0)) + _gpus(1, first=2)
    assert _choose("auto", gpus)[0] == [2]
    gpus = _gpus(4, name="NVIDIA A100", capability=(8, 0)) + _gpus(1, first=4)
    assert _choose("auto", gpus)[0] == [0, 1, 2, 3]


def test_best_connected_pair_is_found(gpus_of):
    chosen, choice = _choose("2", gpus_of("a100_bridged").gpus)
    assert chosen in ([0, 3], [2, 4]) and "NVLink (NV12)" in choice.sentence and choice.warnings == ()
    gpus = _linked(_gpus(4), {(1, 2): "PIX", (0, 3): "PHB"})
    chosen, choice = _choose("2", gpus)
    assert chosen == [1, 2] and any("PCIe" in warning for warning in choice.warnings)


def test_slowest_connection_counts_not_the_sum():
    links = {(0, 1): "NV18", (0, 2): "NV18", (1, 2): "SYS", (1, 3): "PIX", (2, 3): "PIX", (0, 3): "PHB"}
    links |= {(0, 4): "PXB", (1, 4): "PXB", (3, 4): "PXB", (2, 4): "SYS"}
    chosen, _ = _choose("3", _linked(_gpus(5), links))
    assert chosen == [0, 1, 4]


def test_auto_on_real_machines(gpus_of):
    chosen, choice = _choose("auto", gpus_of("h100x8").gpus, needed=33 * GB)
    assert len(chosen) == 4 and 3 not in chosen  # one of eight is in use
    assert "GPU 3" in choice.warnings[0]
    chosen, choice = _choose("auto", gpus_of("a100_bridged").gpus)
    assert chosen == [0, 2, 3, 4]
    assert any("T400" in warning and "7.5" in warning for warning in choice.warnings)


def test_ranks_get_their_gpus_by_uuid(gpus_of):
    choice = choose_gpus("1,0", gpus_of("h100x8", "6,2").gpus, needed_bytes=1)
    assert choice.cuda_visible_devices == ",".join(
        ["GPU-4f21ac72-8e1b-4c7d-9f00-5a3c2b1d0e02", "GPU-4f21ac76-8e1b-4c7d-9f00-5a3c2b1d0e06"]
    )


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("all", [0, 1, 2, 3]),
        ("ALL", [0, 1, 2, 3]),
        ("3,1", [3, 1]),
        ("2,", [2]),
        (" 0, 2 ", [0, 2]),
        ("cuda:1,cuda:2", [1, 2]),
        ("GPU-0003,GPU-0000", [3, 0]),
        ("1", [0]),
    ],
)
def test_words_that_are_understood(wanted, indices):
    assert _choose(wanted, _gpus(4))[0] == indices


@pytest.mark.parametrize(
    ("wanted", "error", "code", "words"),
    [
        ("0,7", UsageError, "gpus.unknown", "There is no GPU 7; there are 0 to 3"),
        ("GPU-9", UsageError, "gpus.unknown", "GPU-9"),
        ("GPU-00", UsageError, "gpus.unknown", "Several GPUs begin with GPU-00"),
        ("1,1", UsageError, "gpus.twice", "GPU 1 is named twice"),
        ("0,GPU-0000", UsageError, "gpus.twice", "named twice"),
        ("both", UsageError, "gpus.words", '"both"'),
        ("", UsageError, "gpus.words", ""),
        ("-1", UsageError, "gpus.words", "-1"),
        ("0,,1", UsageError, "gpus.words", "0,,1"),
        ("0", UsageError, "gpus.count", "At least one"),
        ("5", DeviceError, "gpus.count", "5 GPUs are wanted, and only 4"),
    ],
)
def test_words_that_are_not(wanted, error, code, words):
    with pytest.raises(error) as caught:
        _choose(wanted, _gpus(4))
    assert caught.value.code == code and words in caught.value.message and caught.value.hint


def test_no_gpu_at_all():
    with pytest.raises(DeviceError) as caught:
        _choose("auto", [])
    assert caught.value.code == "gpus.none"


def test_uneven_numbers_are_done_if_asked_for_and_noted():
    chosen, choice = _choose("5", _gpus(8))
    assert len(chosen) == 5 and choice.plan.padding == 4
    assert choice.warnings == ("5 ranks do not share the work evenly; 1, 2, 4 and 8 would.",)


def test_more_ranks_than_bands():
    with pytest.raises(UsageError) as caught:
        _choose("3", _gpus(4), latent_rows=2)
    assert caught.value.code == "ranks.too_many"


def test_too_little_memory_names_numbers_the_size_that_fits_and_the_one_in_the_way(gpus_of):
    gpus = gpus_of("h100x8").gpus
    with pytest.raises(DeviceError) as caught:
        choose_gpus_for("2,3", gpus, MEMORY, height=768, width=448)
    error = caught.value
    assert error.code == "gpus.memory" and error.message.startswith("GPU 3 (NVIDIA H100 80GB HBM3) cannot be used")
    assert "23.2 GB" in error.message and f"{MEMORY.needed_bytes(2) / 1e9:.1f} GB" in error.message
    assert error.hint == (
        "There is enough on GPU 0, 1, 2, 4, 5, 6, 7. python3.10 (process 48213) uses it with 61.7 GB; close it."
    )
    with pytest.raises(DeviceError) as caught:
        choose_gpus_for("1", _gpus(1, free_gb=34), MEMORY, height=768, width=448)
    assert caught.value.hint == "Pictures of 512x512 would fit."


def test_more_ranks_are_advised_where_they_would_help():
    needed = {1: 40, 2: 36, 3: 34, 4: 32}
    with pytest.raises(DeviceError) as caught:
        _choose("1,", _gpus(4, free_gb=33), needed=lambda world: needed[world] * GB)
    assert caught.value.hint == "With 4 ranks 32.0 GB would do."


def test_fewer_ranks_are_never_advised():
    with pytest.raises(DeviceError) as caught:
        _choose("3", _gpus(3, free_gb=33), needed=lambda world: (30 if world == 1 else 40) * GB)
    assert caught.value.hint == "Choose a larger GPU, or the puppet."


def test_nothing_fits(gpus_of):
    with pytest.raises(DeviceError) as caught:
        choose_gpus_for("auto", gpus_of("rtx4090x2").gpus, MEMORY, height=768, width=448)
    assert caught.value.code == "gpus.memory" and caught.value.message.startswith("None of 2 GPUs can be used: GPU 0")
    with pytest.raises(DeviceError) as caught:
        choose_gpus_for("auto", gpus_of("laptop4070").gpus, MEMORY, height=768, width=448)
    assert "GPU 0 (NVIDIA GeForce RTX 4070 Laptop GPU)" in caught.value.message and "7.2 GB" in caught.value.message


def test_same_trouble_is_told_once():
    with pytest.raises(DeviceError) as caught:
        _choose("3", _gpus(4, free_gb=1) + _gpus(2, first=4))
    message = caught.value.message
    assert message.startswith("Only 2 of 6 GPUs can be used: GPUs 0, 1, 2, 3: each has 1.0 GB")
    assert message.count("36.0 GB") == 1


def test_too_old():
    with pytest.raises(DeviceError) as caught:
        _choose("all", _gpus(2) + _gpus(1, first=2, name="NVIDIA T4", capability=(7, 5)))
    assert caught.value.code == "gpus.too_old" and "7.5" in caught.value.message and "8.0" in caught.value.message


@pytest.mark.parametrize("is_old_first", [True, False])
def test_want_of_memory_is_what_is_said_of_several_troubles(is_old_first):
    """It can be mended, and fewer weights on the GPU may be all that it takes."""
    old = _gpus(1, name="NVIDIA GTX 1080", capability=(6, 1), free_gb=8)
    small = _gpus(1, first=1, free_gb=24)
    for wanted in ("auto", "1"):
        with pytest.raises(DeviceError) as caught:
            _choose(wanted, old + small if is_old_first else small + old)
        assert caught.value.code == "gpus.memory" and "36.0 GB are needed" in caught.value.message
        assert "bfloat16" in caught.value.message and "Ampere" not in caught.value.hint


def test_different_kinds_are_allowed_and_the_slowest_is_named():
    gpus = _gpus(1) + _gpus(1, first=1, name="NVIDIA A100", capability=(8, 0))
    for wanted in ("0,1", "2", "all"):
        chosen, choice = _choose(wanted, gpus)
        assert chosen == [0, 1] and "the slowest, GPU 1 (NVIDIA A100)" in choice.warnings[0]
        assert "NVIDIA H100 and NVIDIA A100" in choice.sentence


def test_split_gpu_is_taken_alone(gpus_of):
    both = gpus_of("mig_h100").gpus
    with pytest.raises(DeviceError) as caught:
        _choose("all", both)
    assert caught.value.code == "gpus.mig" and "-i 0 -mig 0" in caught.value.hint
    chosen, choice = _choose("auto", both)
    assert chosen == [1] and "because" not in choice.sentence
    choice = _choose("0,", both)[1]
    assert choice.cuda_visible_devices == "MIG-b3061c09-2a4c-5026-a575-79f86a5bb12c"
    assert choice.sentence.endswith("it needs 36.0 GB of 40.0 GB that are free.")
    with pytest.raises(DeviceError) as caught:
        _choose("0,", both, needed=41 * GB)
    assert caught.value.code == "gpus.memory" and "40.0 GB" in caught.value.message


def test_unknown_memory_is_no_obstacle():
    gpu = replace(_gpus(1)[0], free_bytes=None, total_bytes=None)
    assert _choose("auto", [gpu])[1].sentence.endswith("it needs 36.0 GB.")


def test_sentence_says_all(gpus_of):
    gpus = gpus_of("h100x8", "0,1,2,4,5,6,7").gpus
    choice = choose_gpus_for("auto", gpus, MEMORY, height=768, width=448)
    assert choice.needed_bytes == MEMORY.needed_bytes(4)
    assert choice.sentence == (
        "GPUs 0, 1, 2, 3 of 7 (NVIDIA H100 80GB HBM3), connected by NVLink (NV18): 4 ranks, heads over 4, 3024 tokens "
        "each, because 40 heads and 12096 tokens divide by 4 and not by 7; "
        f"each needs {MEMORY.needed_bytes(4) / 1e9:.1f} GB of at least 84.9 GB that are free."
    )


def test_number_of_nvidia_smi_is_told_where_it_differs(gpus_of):
    with pytest.raises(DeviceError, match=r"GPU 1 \(NVIDIA H100 80GB HBM3, 3 of nvidia-smi\)"):
        _choose("all", gpus_of("h100x8", "2,3").gpus)
