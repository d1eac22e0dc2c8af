"""FlashTalk in one rank and in two gives the frames that it gives in this process, also when torchrun starts them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import GeneratorError
from engine.media import AudioChunk, Portrait
from engine.worker.flashtalk import RankedFlashTalk
from engine.worker.generator import RankedGenerator

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # on a machine that is busy with other things, ranks take a minute to start

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PORTRAIT = Portrait(image=np.zeros((8, 8, 3), np.uint8), name="", path="", digest="black")
CHUNKS = 4
ECONOMIES = (0, 1, 0, 0)
STEPS = {4: 1, 3: 2, 2: 1}
"""The second chunk is asked for in three steps at most, and steady noise needs fewer and fewer from the third on."""
SAMPLES = 17920


class Quiet:
    def update(self, stage, done, total, unit="") -> None:
        pass


class Kept:
    """A `FrameWriter` that keeps everything."""

    def __init__(self) -> None:
        self.image = np.zeros((32, 32, 3), np.uint8)
        self.frames: list[np.ndarray] = []
        self.numbers: list[int] = []

    def next_image(self) -> np.ndarray:
        return self.image

    def commit(self, frame: int) -> None:
        self.frames.append(self.image.copy())
        self.numbers.append(frame)


@pytest.fixture(scope="module")
def options(tiny_checkpoint, tmp_path_factory):
    """Of both the generator and its ranks; features are kept between the tests, as they are on a real machine."""
    model, speech = tiny_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield {
            "checkpoint": str(model),
            "speech_encoder": str(speech),
            "size": "32x32",
            "steps": "auto",
            "device": "cpu",
        }


@pytest.fixture(scope="module")
def reference(options):
    """The frames of this process."""
    from engine.generators.flashtalk.generator import FlashTalkGenerator

    generator = FlashTalkGenerator(seed=5, **options)
    frames = _stream(generator)
    assert generator.step_counts.chunks == STEPS
    return frames


def _stream(generator, seed: int = 7, chunks: int = CHUNKS) -> np.ndarray:
    """uint8 [frames, 32, 32, 3] of so many chunks."""
    speaker = Speaker(generator, seed)
    try:
        generator.check()
        speaker.prepare()
        for _ in range(chunks):
            speaker.speak()
    finally:
        generator.close()
    return speaker.frames


class Speaker:
    """A portrait and what it says, both by `seed`."""

    def __init__(self, generator, seed: int = 7) -> None:
        self._generator, self._draw, self._kept = generator, np.random.default_rng(seed), Kept()
        image = self._draw.integers(0, 256, (48, 40, 3), dtype=np.uint8)
        self._portrait = Portrait(image=image, name="p", path="", digest=f"tiny{seed}")
        self._chunks = 0

    def prepare(self) -> None:
        self._generator.prepare(self._portrait, (640, 360), Quiet())

    def speak(self) -> None:
        """The next chunk."""
        index, self._chunks = self._chunks, self._chunks + 1
        samples = (0.1 * self._draw.standard_normal(SAMPLES)).astype(np.float32)
        chunk = AudioChunk(
            first_frame=28 * index, frames=28, first_sample=SAMPLES * index, samples=samples,
            economy=ECONOMIES[index],
        )  # fmt: skip
        self._generator.generate(chunk, self._kept)

    @property
    def frames(self) -> np.ndarray:
        """uint8 [frames, 32, 32, 3] of all chunks so far."""
        assert self._kept.numbers == list(range(28 * self._chunks))
        return np.stack(self._kept.frames)


def _difference(frames: np.ndarray, reference: np.ndarray) -> int:
    return int(np.abs(frames.astype(int) - reference).max())


def test_the_frames_show_something(reference):
    assert reference.std() > 10
    assert np.abs(np.diff(reference.astype(int), axis=0)).mean() > 0.1, "or equal frames would prove nothing"


def test_one_rank_gives_the_same_bytes(options, reference):
    assert (_stream(RankedFlashTalk(seed=5, ranks=1, **options)) == reference).all()


def test_two_ranks_differ_in_rounding_alone_and_so_does_a_portrait_that_is_prepared_between_the_chunks(
    options, reference
):
    from engine.generators.flashtalk.generator import FlashTalkGenerator

    other_reference = _stream(FlashTalkGenerator(seed=5, **options), seed=8, chunks=1)
    generators = [RankedFlashTalk(seed=5, ranks=2, **options) for _ in range(2)]
    speaker, other = Speaker(generators[0]), Speaker(generators[1], seed=8)
    try:
        speaker.prepare()
        speaker.speak()
        preparing = threading.Thread(target=other.prepare)
        preparing.start()
        speaker.speak()
        speaker.speak()
        preparing.join()
        other.speak()
        speaker.speak()
    finally:
        for generator in generators:
            generator.close()
    for frames, wanted in ((speaker.frames, reference), (other.frames, other_reference)):
        assert _difference(frames, wanted) <= 1
        assert (frames != wanted).mean() < 0.02


def test_another_checkpoint_on_one_rank_is_noticed(options, tmp_path, monkeypatch):
    """Right in form and size, so that nothing but a comparison finds it; the picture would be wrong at once."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FIXTURES), str(ROOT)]))
    other = tmp_path / "other"
    shutil.copytree(options["checkpoint"], other)
    shard = sorted(other.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    plain = RankedFlashTalk(ranks=2, **options)
    mixed = dict(plain._settings.options) | {"others": str(other)}
    generator = RankedGenerator(
        dataclasses.replace(plain._settings, generator="rank_flashtalk:Mixed", options=tuple(mixed.items()))
    )
    with pytest.raises(GeneratorError, match="rank 1 differs from rank 0") as caught:
        generator.prepare(PORTRAIT, (64, 64), Quiet())
    generator.close()
    assert caught.value.code == "worker.disagree"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the agents are told to use the interface lo")
def test_torchrun_on_two_machines(options, reference, fixture_module):
    """Two agents of one rank each, over the loopback in the place of a network."""
    with tempfile.TemporaryDirectory(prefix="door-") as folder:
        door = f"{folder}/engine"
        port = fixture_module("free_port").free_port()
        agents = [_agent(node, door, port) for node in range(2)]
        try:
            frames = _stream(RankedFlashTalk(seed=5, ranks_at=door, **options))
            assert [agent.wait(60) for agent in agents] == [0, 0], "the ranks were asked to leave and did"
        finally:
            for agent in agents:
                _kill_all(agent)
        assert _difference(frames, reference) <= 1
        assert os.listdir(folder) == []


def _agent(node: int, door: str, port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run",
            "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--rdzv-backend=static",
            "--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0",
            "-m", "engine.worker.rank", "--engine", door,
        ],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
        cwd=ROOT,
    )  # fmt: skip


def _kill_all(agent: subprocess.Popen) -> None:
    if agent.poll() is None:
        for process in [*psutil.Process(agent.pid).children(recursive=True), psutil.Process(agent.pid)]:
            process.kill()
    agent.wait()


def test_a_door_that_others_could_use_is_not_opened(options, tmp_path):
    tmp_path.chmod(0o755)
    generator = RankedFlashTalk(ranks_at=str(tmp_path / "engine"), **options)
    with pytest.raises(GeneratorError, match="open to others"):
        generator.prepare(PORTRAIT, (64, 64), Quiet())
    generator.close()
