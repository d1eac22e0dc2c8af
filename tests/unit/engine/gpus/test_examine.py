"""One obstacle at a time, each with its own action; and torch is read, not imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, PathDistribution

import pytest

from engine.gpus import examine
from engine.gpus.examine import TorchBuild, examine_gpus, installed_torch
from engine.gpus.types import GpusFound

CUDA_12 = TorchBuild(version="2.7.0+cu126", cuda=(12, 6))


@pytest.fixture
def findings(gpus_of):
    """(state, code, message, hint) of each finding on a machine, maybe with its first GPU changed."""

    def run(machine, build=CUDA_12, visible=None, **changes):
        found = gpus_of(machine, visible)
        if changes:
            found = GpusFound(gpus=(replace(found.gpus[0], **changes),))
        told = examine_gpus(lambda: found, lambda: build)
        assert all(reason.hint for state, reason in told if state != "good")
        return [(state, reason.code, reason.message) for state, reason in told]

    return run


def test_all_is_well(findings):
    assert findings("h100x8") == [
        ("good", "", "FlashTalk can run: 7 GPUs, the largest NVIDIA H100 80GB HBM3, 85 GB free; torch 2.7.0+cu126.")
    ]
    assert findings("a100_bridged", visible="GPU-c5e88120")[0][0] == "good"


@pytest.mark.parametrize(
    ("machine", "changes", "code", "words"),
    [
        ("driver_down", {}, "gpu.driver_not_running", "FlashTalk cannot run"),
        ("no_devices", {}, "gpu.none", "FlashTalk cannot run"),
        ("laptop4070", {"total_bytes": 4 << 30}, "gpu.too_small", "4.3 GB of memory; FlashTalk needs 5.6 GB"),
        ("h100x8", {"compute_capability": (7, 0)}, "gpu.too_old", "compute capability 7.0"),
        ("h100x8", {"free_bytes": 3 << 30}, "gpu.busy", "Only 3.2 GB are free"),
        ("h100x8", {"is_split": True}, "gpu.too_small", "0.0 GB"),
    ],
)
def test_hardware_is_told_alone(findings, machine, changes, code, words):
    # Without a suitable GPU, advice on libraries would be of no use.
    ((state, found, message),) = findings(machine, None, **changes)
    assert (state, found) == ("limited", code) and words in message


def test_busy_gpu_names_the_programs(gpus_of):
    gpus = tuple(replace(gpu, free_bytes=5_000_000_000) for gpu in gpus_of("h100x8", "3").gpus)
    ((_, reason),) = examine_gpus(lambda: GpusFound(gpus=gpus), lambda: CUDA_12)
    assert reason.code == "gpu.busy" and reason.hint == "Close what uses it: python3.10 (48213)."


@pytest.mark.parametrize(
    ("free_gb", "state", "code", "words"),
    [
        (40, "good", "", "FlashTalk can run: NVIDIA"),
        (24, "good", "", "weights of 8 bits (precision=int8 or fp8)"),
        (16, "limited", "gpu.streamed", "brought from the computer's memory at every step"),
        (5, "limited", "gpu.busy", "Only 5.0 GB are free"),
    ],
)
def test_the_best_way_that_there_is_room_for_is_told(gpus_of, free_gb, state, code, words):
    gpus = tuple(replace(gpu, free_bytes=free_gb * 10**9) for gpu in gpus_of("h100x8", "0").gpus)
    ((found, reason),) = examine_gpus(lambda: GpusFound(gpus=gpus), lambda: CUDA_12)
    assert (found, reason.code) == (state, code) and words in reason.message


@pytest.mark.parametrize(
    ("build", "machine", "code"),
    [
        (None, "h100x8", "gpu.no_torch"),
        (TorchBuild(version="2.13.0+cpu", cuda=None), "h100x8", "gpu.cpu_torch"),
        (TorchBuild(version="2.13.0", cuda=(13, 0)), "h100x8", "gpu.driver_old"),
    ],
)
def test_libraries(findings, build, machine, code):
    ((state, found, _),) = findings(machine, build)
    assert (state, found) == ("limited", code)


def test_part_of_a_split_gpu_will_do(findings):
    assert findings("mig_h100", visible="MIG-b3061c09-2a4c-5026-a575-79f86a5bb12c")[0][0] == "good"
    assert findings("mig_h100", visible="MIG-0d3a5b6e-9a51-5f3b-8f0c-6b6c1f3a7e21")[0][1] == "gpu.streamed"


def test_notes_come_along(findings):
    assert [code for _, code, _ in findings("a100_bridged", visible="0,2")] == ["gpu.order", ""]


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("__version__ = '2.7.0'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n", (12, 6)),
        ('cuda = "13.0"\n', (13, 0)),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", None),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.3'\n", None),
        (None, None),
    ],
)
def test_torch_is_read_from_its_files(tmp_path, monkeypatch, text, cuda):
    (tmp_path / "torch-2.7.0.dist-info").mkdir()
    (tmp_path / "torch-2.7.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.7.0\n")
    if text is not None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "version.py").write_text(text)
    installed = PathDistribution(tmp_path / "torch-2.7.0.dist-info")
    monkeypatch.setattr(examine, "distribution", lambda name: installed)
    assert installed_torch() == TorchBuild(version="2.7.0", cuda=cuda)


def test_no_torch(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(examine, "distribution", missing)
    assert installed_torch() is None


def test_agrees_with_torch_itself():
    torch = pytest.importorskip("torch")
    build = installed_torch()
    assert build is not None
    assert (None if build.cuda is None else "{}.{}".format(*build.cuda)) == torch.version.cuda


def test_nothing_here_imports_torch():
    script = (
        "import sys\n"
        "from engine.gpus.examine import examine_gpus\n"
        "from engine.worker.gpus import choose_gpus\n"
        "examine_gpus()\n"
        "raise SystemExit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
