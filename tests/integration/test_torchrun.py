"""Ranks that torchrun starts, on machines that it believes to be two: long waits, and starting again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import GeneratorError
from engine.generators.base import GeneratorSpec
from engine.media import AudioChunk, ChunkSpec, Portrait
from engine.worker.generator import RankedGenerator
from engine.worker.group_settings import GroupSettings

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.timeout(300),  # on a machine that is busy with other things, ranks take a minute to start
    pytest.mark.skipif(sys.platform != "linux", reason="gloo is told to use the interface lo"),
]

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
FRAMES = 4
SPEC = GeneratorSpec(name="test", width=16, height=8, chunk=ChunkSpec(fps=25, frames=FRAMES), follows_canvas=False)
PORTRAIT = Portrait(image=np.full((6, 5, 3), 40, np.uint8), name="p", path="p.png", digest="d")
JOIN_S = 8.0
"""As in rank_late.py."""


@pytest.fixture
def folder():
    """Private, and with a short name: a socket's path has little room."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as path:
        yield Path(path)


class Frames:
    """A `FrameWriter` that knows what it got."""

    def __init__(self) -> None:
        self.image = np.zeros((8, 16, 3), np.uint8)
        self.numbers: list[int] = []

    def next_image(self) -> np.ndarray:
        return self.image

    def commit(self, frame: int) -> None:
        self.numbers.append(frame)


class News:
    """A `Progress` that knows what it was told, and does something `until` that."""

    def __init__(self, until=lambda stage, done: None) -> None:
        self._until = until

    def update(self, stage, done, total, unit="") -> None:
        self._until(stage, done)


def _generator(folder: Path, kind: str) -> RankedGenerator:
    settings = GroupSettings(
        generator=kind, seed=3, fps=25, options=(("folder", str(folder)),), spec=SPEC, ranks_at=str(folder / "engine")
    )
    return RankedGenerator(settings)


def _prepare_and_speak(generator: RankedGenerator, news: News | None = None) -> None:
    generator.prepare(PORTRAIT, (640, 360), news or News())
    _speak(generator, 0)


def _speak(generator: RankedGenerator, index: int) -> None:
    chunk = AudioChunk(
        first_frame=FRAMES * index, frames=FRAMES, first_sample=0, samples=np.zeros(640 * FRAMES, np.float32)
    )
    frames = Frames()
    generator.generate(chunk, frames)
    assert frames.numbers == list(range(FRAMES * index, FRAMES * (index + 1)))


def _speak_on(generator: RankedGenerator) -> None:
    for index in range(1, 100):
        _speak(generator, index)
        time.sleep(0.1)


@contextlib.contextmanager
def _torchrun(folder: Path, *, machines: int = 1, restarts: int = 0, program: str = "engine.worker.rank"):
    """Two ranks on one machine, or on two. None of their processes is left afterwards."""
    agents = [_agent(folder, node, machines, port, restarts, program) for port in [_port()] for node in range(machines)]
    try:
        yield agents
    finally:
        for agent in agents:
            _kill_all(agent)


def _agent(folder: Path, node: int, machines: int, port: int, restarts: int, program: str) -> subprocess.Popen:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run",
            f"--nnodes={machines}", f"--nproc-per-node={2 // machines}", f"--node-rank={node}",
            "--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}",
            f"--max-restarts={restarts}", "-m", program, "--engine", str(folder / "engine"),
        ],
        env=os.environ
        | {
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": os.pathsep.join([str(FIXTURES), str(ROOT)]),
            "TMPDIR": str(logs),
            "STANDIN_TEST_JOINS": str(logs),
        },
        cwd=ROOT,
    )  # fmt: skip


def _kill_all(agent: subprocess.Popen) -> None:
    """Ranks end with their agent; what it has besides is listed before."""
    if agent.poll() is None:
        family = psutil.Process(agent.pid).children(recursive=True)
        agent.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    agent.wait()


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _rank(agents: list[subprocess.Popen], number: int) -> psutil.Process:
    for agent in agents:
        for process in psutil.Process(agent.pid).children(recursive=True):
            if process.environ().get("RANK") == str(number):
                return process
    raise AssertionError(f"there is no rank {number}")


def test_ranks_tell_how_far_they_are_while_one_waits_in_the_store_for_another(folder):
    (folder / "load").touch()
    generator = _generator(folder, "rank_late:Late")
    # Three seconds of news from rank 1, which rank 0 passes on.
    news = News(lambda stage, done: stage == "model" and done > 15 and (folder / "load").unlink(missing_ok=True))
    with _torchrun(folder) as agents, contextlib.closing(generator):
        _prepare_and_speak(generator, news)
        generator.close()
        assert agents[0].wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_ranks_that_are_started_again_come_back(folder, machines):
    """torchrun keeps its store, with all that the ranks before them had in it."""
    with _torchrun(folder, machines=machines, restarts=1) as agents:
        with contextlib.closing(_generator(folder, "rank_generators:Summing")) as generator:
            _prepare_and_speak(generator)
            _rank(agents, 1).send_signal(signal.SIGKILL)
            with pytest.raises(GeneratorError):
                _speak_on(generator)
        with contextlib.closing(_generator(folder, "rank_generators:Summing")) as generator:
            _prepare_and_speak(generator)
        assert [agent.wait(60) for agent in agents] == [0] * machines


@pytest.mark.slow
def test_an_engine_may_come_long_after_the_ranks(folder):
    """Rank 1 waits for rank 0 as long as that does for an engine."""
    with _torchrun(folder, program="rank_late") as agents:
        while not (folder / "logs" / "joins1").exists():
            time.sleep(0.1)
        time.sleep(JOIN_S + 1.0)
        with contextlib.closing(_generator(folder, "rank_generators:Summing")) as generator:
            _prepare_and_speak(generator)
        assert agents[0].wait(60) == 0
