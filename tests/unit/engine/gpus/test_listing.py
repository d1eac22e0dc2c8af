"""What nvidia-smi prints, read back: GPUs, users, ways between them, and every way to have none."""

from __future__ import annotations

import pytest

from engine.errors import DeviceError
from engine.gpus.links import link_lines, link_rank, slowest_link
from engine.gpus.listing import list_gpus, parse_links
from engine.gpus.types import GpuProcess

MIB = 1 << 20


def test_all_that_is_told_of_a_gpu(gpus_of):
    found = gpus_of("h100x8")
    assert found.problem is None and found.notes == () and len(found.gpus) == 8
    gpu = found.gpus[3]
    assert (gpu.index, gpu.system_index, gpu.name, gpu.driver) == (3, 3, "NVIDIA H100 80GB HBM3", "550.90.07")
    assert (gpu.total_bytes, gpu.free_bytes) == (81559 * MIB, 22160 * MIB)
    assert gpu.compute_capability == (9, 0) and gpu.uuid.startswith("GPU-4f21ac73-") and not gpu.is_split
    assert gpu.processes == (GpuProcess(pid=48213, name="python3.10", used_bytes=58830 * MIB),)
    assert found.gpus[0].processes == ()


def test_every_pair_has_its_way_and_adapters_are_no_gpus(gpus_of):
    gpus = gpus_of("h100x8").gpus
    for gpu in gpus:
        assert gpu.links == {other: "NV18" for other in range(8) if other != gpu.index}
    assert link_lines(gpus) == ["between all: NVLink (NV18)"]
    assert slowest_link(gpus) == "NV18" and slowest_link(gpus[:1]) is None


def test_ways_of_several_kinds(gpus_of):
    gpus = gpus_of("a100_bridged").gpus
    assert gpus[0].links == {1: "NODE", 2: "NODE", 3: "NV12", 4: "SYS"}
    lines = link_lines(gpus)
    assert lines[0] == "between 0-3, 2-4: NVLink (NV12)"
    assert [line.split("(")[-1] for line in lines] == ["NV12)", "NODE)", "SYS)"]


def test_order_of_ways():
    kinds = ["NV18", "NV4", "PIX", "PXB", "PHB", "NODE", "SYS", ""]
    assert sorted(kinds, key=link_rank, reverse=True) == kinds


def test_matrix_without_escapes_and_with_nothing():
    assert parse_links("") == {} and parse_links("Not Supported") == {}
    assert parse_links("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tSYS\t0-3\nGPU1\tSYS\t X \t0-3\n") == {
        0: {1: "SYS"},
        1: {0: "SYS"},
    }


def test_laptop_is_not_asked_for_a_matrix_and_hides_who_uses_it(gpus_of, played_smi):
    (gpu,) = gpus_of("laptop4070").gpus
    assert [(p.pid, p.name, p.used_bytes) for p in gpu.processes] == [
        (1712, "[Insufficient Permissions]", None),
        (9044, "obs64.exe", None),
    ]
    smi = played_smi("laptop4070")
    assert len(list_gpus(smi, {})) == 1 and "topo" not in smi.asked and "-L" not in smi.asked


def test_split_gpu_has_parts(gpus_of):
    split, whole = gpus_of("mig_h100").gpus
    assert split.is_split and not whole.is_split and whole.parts == ()
    assert [(part.profile, part.total_bytes) for part in split.parts] == [
        ("3g.40gb", 40_000_000_000),
        ("1g.10gb", 10_000_000_000),
    ]


@pytest.mark.parametrize(
    ("visible", "system_indices"),
    [
        ("2,0", [2, 0]),
        (" 1 , 5", [1, 5]),
        ("GPU-4f21ac77-8e1b-4c7d-9f00-5a3c2b1d0e07,GPU-4f21ac71", [7, 1]),
        ("3,9,1", [3]),
        ("3,-1,1", [3]),
        ("GPU-4f21ac7", []),
        ("1,1", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices_by_the_rules_of_cuda(gpus_of, visible, system_indices):
    found = gpus_of("h100x8", visible)
    assert [gpu.system_index for gpu in found.gpus] == system_indices
    assert [gpu.index for gpu in found.gpus] == list(range(len(system_indices)))
    assert (found.problem is not None and found.problem.code == "gpu.hidden") == (not system_indices)
    for gpu in found.gpus:
        assert sorted(gpu.links) == [other.index for other in found.gpus if other is not gpu]
    assert [note.code for note in found.notes] == (["gpu.visible_devices"] if "3," in visible else [])


def test_links_follow_the_new_numbers(gpus_of):
    first, second, third = gpus_of("a100_bridged", "4,0,2").gpus
    assert (first.links, second.links) == ({1: "SYS", 2: "NV12"}, {0: "SYS", 2: "NODE"})
    assert third.links == {0: "NV12", 1: "NODE"}


def test_visible_part_of_a_split_gpu(gpus_of):
    (gpu,) = gpus_of("mig_h100", "MIG-0d3a5b6e-9a51-5f3b-8f0c-6b6c1f3a7e21").gpus
    assert gpu.system_index == 0 and [part.profile for part in gpu.parts] == ["1g.10gb"]


def test_numbers_of_different_gpus_may_mean_others_to_cuda(gpus_of):
    assert [note.code for note in gpus_of("a100_bridged", "0,2").notes] == ["gpu.order"]
    assert gpus_of("a100_bridged", "0,2", CUDA_DEVICE_ORDER="PCI_BUS_ID").notes == ()
    assert gpus_of("a100_bridged", "GPU-c5e88120").notes == () == gpus_of("h100x8", "0").notes


@pytest.mark.parametrize(
    ("machine", "code"),
    [
        ("driver_down", "gpu.driver_not_running"),
        ("driver_updated", "gpu.driver_mismatch"),
        ("no_devices", "gpu.none"),
        ("old_driver", "gpu.driver_old"),
        ("lost_gpu", "gpu.lost"),
    ],
)
def test_failures_have_a_cause_and_an_action(gpus_of, machine, code):
    found = gpus_of(machine)
    assert found.gpus == () and found.problem.code == code and found.problem.hint and found.problem.detail


def _answering(rows: str):
    def run(arguments):
        if arguments[0].startswith("--query-gpu"):
            return rows
        raise DeviceError("no")

    return run


def test_other_answers_may_be_missing():
    (gpu,) = list_gpus(_answering("0, GPU-aa, NVIDIA GB10, [N/A], [N/A], 12.1, 580.95.05, [N/A]\n"), {})
    assert (gpu.total_bytes, gpu.free_bytes, gpu.compute_capability) == (None, None, (12, 1))


def test_gpu_that_fell_off_is_left_out_with_a_note():
    from engine.gpus.listing import find_gpus

    rows = (
        "0, GPU-aa, NVIDIA A100, 40960, 40000, 8.0, 550.1, Disabled\n"
        "1, GPU-bb, NVIDIA A100, [GPU is lost], [GPU is lost], 8.0, 550.1, Disabled\n"
        "WARNING: infoROM is corrupted at gpu 0000:15:00.0\n"
    )
    found = find_gpus(_answering(rows), {})
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-aa"]
    assert [note.code for note in found.notes] == ["gpu.lost", "gpu.driver_failed"]
    assert "infoROM" in found.notes[1].message


@pytest.mark.parametrize("rows", ["", "\n\n", "nonsense\n", "0, GPU-aa\n"])
def test_nonsense_is_a_problem_not_a_crash(rows):
    from engine.gpus.listing import find_gpus

    assert find_gpus(_answering(rows), {}).problem is not None
