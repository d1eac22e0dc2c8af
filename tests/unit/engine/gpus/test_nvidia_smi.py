"""The program itself, as a process: a stand-in on the PATH that answers, fails, hangs or is not there."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time

import pytest

from engine.errors import DeviceError
from engine.gpus import nvidia_smi
from engine.gpus.listing import find_gpus


@pytest.fixture(autouse=True)
def _no_other_places(monkeypatch):
    monkeypatch.setattr(nvidia_smi, "_PLACES", ())


@pytest.mark.parametrize(("machine", "count"), [("h100x8", 8), ("rtx4090x2", 2), ("laptop4070", 1), ("mig_h100", 2)])
def test_machines_are_read_as_from_their_texts(machine_path, gpus_of, machine, count):
    machine_path(machine)
    found = find_gpus()
    assert found == gpus_of(machine) and len(found.gpus) == count


def test_environment_of_the_process_counts(machine_path, monkeypatch):
    machine_path("h100x8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert [gpu.system_index for gpu in find_gpus().gpus] == [6, 7]


@pytest.mark.parametrize("machine", ["driver_down", "driver_updated", "no_devices", "old_driver", "lost_gpu"])
def test_exit_status_makes_it_a_failure(machine_path, gpus_of, machine):
    machine_path(machine)
    found = find_gpus()
    assert found.problem.code == gpus_of(machine).problem.code and found.gpus == ()


def test_words_on_standard_error_count_when_it_fails_only(machine_path):
    machine_path(script="echo 'Failed to initialize NVML: Insufficient Permissions' >&2; exit 4\n")
    assert find_gpus().problem.code == "gpu.forbidden"
    machine_path(script="echo chatter >&2; echo answer\n")
    assert nvidia_smi.run_nvidia_smi(["-L"]) == "answer\n"


def test_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = find_gpus().problem
    assert problem.code == "gpu.no_driver" and problem.hint


def test_not_executable_text(machine_path):
    machine_path(script="").write_bytes(b"\x7fELF nonsense")
    assert find_gpus().problem.code == "gpu.driver_failed"


@pytest.fixture
def pid_file(monkeypatch, tmp_path):
    """Where the program tells its process id; its time begins when it has."""
    path, communicate = tmp_path / "pid", subprocess.Popen.communicate

    def communicate_with_a_running_one(process, *args, **options):
        assert _becomes_true(lambda: path.exists() and path.read_text().endswith("\n"))
        return communicate(process, *args, **options)

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate_with_a_running_one)
    return path


def test_one_that_hangs_is_ended(machine_path, pid_file):
    machine_path(script=f"echo $$ > {pid_file}; exec sleep 60\n")
    with pytest.raises(DeviceError) as caught:
        nvidia_smi.run_nvidia_smi(["-L"], timeout_s=0.3)
    assert caught.value.code == "gpu.hangs" and "0.3 seconds" in caught.value.message
    assert _is_gone(int(pid_file.read_text()))


def test_one_that_not_even_dies_is_reaped_when_it_does(machine_path, pid_file, monkeypatch):
    """As one that waits inside the driver: nobody complains about it meanwhile."""
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _process: None)
    monkeypatch.setattr(nvidia_smi, "_DIES_WITHIN_S", 0.05)
    machine_path(script=f"echo $$ > {pid_file}; exec sleep 60\n")
    with pytest.raises(DeviceError, match="has not answered"):
        nvidia_smi.run_nvidia_smi(["-L"], timeout_s=0.1)
    gc.collect()  # a warning would be an error here
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    assert _is_gone(pid)


def test_one_whose_children_keep_the_pipe_is_left_alone(machine_path):
    machine_path(script="trap '' TERM; sleep 3 & wait\n")
    with pytest.raises(DeviceError, match="has not answered"):
        nvidia_smi.run_nvidia_smi(["-L"], timeout_s=0.2)


def _is_gone(pid: int) -> bool:
    import psutil

    return _becomes_true(lambda: not psutil.pid_exists(pid))


def _becomes_true(condition) -> bool:
    end_s = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True
