"""Machines with GPUs, as what nvidia-smi prints on them: written by hand after its format, in `gpus/machines`."""

from __future__ import annotations

import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.gpus.listing import find_gpus
from engine.gpus.nvidia_smi import failure

MACHINES = Path(__file__).parent / "gpus" / "machines"
ANSWERS = {"--query-gpu": "gpus.txt", "--query-compute-apps": "processes.txt", "topo": "topo.txt", "-L": "list.txt"}


class PlayedSmi:
    """In the place of `run_nvidia_smi`; `asked` keeps the questions."""

    def __init__(self, machine: str) -> None:
        self.folder = MACHINES / machine
        self.asked: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        question = arguments[0].split("=")[0]
        self.asked.append(question)
        if (self.folder / "failure.txt").exists():
            raise failure((self.folder / "failure.txt").read_text())
        answer = self.folder / ANSWERS[question]
        if not answer.exists():
            raise failure("Not Supported")
        return answer.read_text()


@pytest.fixture
def played_smi():
    """From a machine's name to its nvidia-smi."""
    return PlayedSmi


@pytest.fixture
def gpus_of():
    """From a machine's name, and maybe CUDA_VISIBLE_DEVICES, to what is found there."""

    def find(machine: str, visible: str | None = None, **environment: str):
        variables = environment if visible is None else environment | {"CUDA_VISIBLE_DEVICES": visible}
        return find_gpus(PlayedSmi(machine), variables)

    return find


@pytest.fixture
def machine_path(tmp_path, monkeypatch):
    """Puts a real program called nvidia-smi, which plays a machine (or any shell text), alone on the PATH."""
    if sys.platform == "win32":
        pytest.skip("the stand-in for nvidia-smi is a shell script")

    def put(machine: str = "", script: str = "") -> Path:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n" + (script or _script(MACHINES / machine)), encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return program

    return put


def _script(folder: Path) -> str:
    where = shlex.quote(str(folder))
    cases = "\n".join(f'{question}*) answer="{name}" ;;' for question, name in ANSWERS.items())
    return f"""cd {where}
if [ -e failure.txt ]; then cat failure.txt; exit "$(cat status.txt)"; fi
case "$1" in
{cases}
esac
if [ ! -e "$answer" ]; then echo "Not Supported" >&2; exit 3; fi
exec cat "$answer"
"""
