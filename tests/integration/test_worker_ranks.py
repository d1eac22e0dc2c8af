"""Ranks as real processes over gloo: frames arrive as they are made, and every way to fail ends in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import Cancelled, GeneratorError, ModelFilesError, PortraitError
from engine.generators.base import GeneratorSpec
from engine.media import AudioChunk, ChunkSpec, Portrait
from engine.worker import fate
from engine.worker.generator import RankedGenerator
from engine.worker.group_settings import GroupSettings

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
WIDTH, HEIGHT, FRAMES = 16, 8, 4
SPEC = GeneratorSpec(
    name="test", width=WIDTH, height=HEIGHT, chunk=ChunkSpec(fps=25, frames=FRAMES), follows_canvas=False
)
PORTRAIT = Portrait(
    image=np.full((6, 5, 3), 40, np.uint8), name="p", path="p.png", digest="d", alpha=np.full((6, 5), 7, np.uint8)
)
ROOM = (640, 360)
pytestmark = pytest.mark.timeout(600)  # on a machine that is busy with other things, ranks take a minute to start

MARK = "STANDIN_TEST_OF_RANKS"


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """A mark on all processes of the test and a folder of its own for what they keep: others may have ranks, too."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:  # short: a socket's path has little room
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FIXTURES), str(ROOT)]))
        monkeypatch.setenv(MARK, folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(fate, "_REASON_S", 20.0)  # on a busy machine, too, the true reason is to be told
        monkeypatch.setattr(fate, "_LAST_FRAMES_S", 20.0)
        yield folder


@pytest.fixture
def nothing_left(place):
    """Asserts, when called and at the end, that no process and no folder of the ranks is there."""

    def check() -> None:
        deadline = time.monotonic() + 10.0
        while _traces(place) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _traces(place) == []

    yield check
    check()


def _traces(place: str) -> list[str]:
    processes = [
        " ".join(child.info["cmdline"] or ())
        for child in psutil.process_iter(["cmdline", "environ", "pid"])
        if child.pid != os.getpid() and (child.info["environ"] or {}).get(MARK) == place
    ]
    # The resource tracker of this process is Python's own, and stays for as long as this process.
    return [text for text in processes if "resource_tracker" not in text] + os.listdir(place)


def _settings(folder, *, ranks=2, seed=3, timeout_s=30.0, still_s=60.0, **options) -> GroupSettings:
    return GroupSettings(
        generator="rank_generators:Summing",
        seed=seed,
        fps=25,
        options=tuple({"folder": str(folder), **options}.items()),
        spec=SPEC,
        ranks=ranks,
        timeout_s=timeout_s,
        still_s=still_s,
    )


def _chunk(index: int, loudness: float = 0.0, economy: int = 0) -> AudioChunk:
    samples = np.zeros(640 * FRAMES, np.float32)
    samples[0] = loudness
    return AudioChunk(
        first_frame=index * FRAMES,
        frames=FRAMES,
        first_sample=index * 640 * FRAMES,
        samples=samples,
        economy=economy,
    )


def _segments() -> int:
    """Shared memory of this process, by name or mapped."""
    maps = Path("/proc/self/maps")
    return sum("psm_" in line for line in maps.read_text().splitlines()) if maps.exists() else 0


@contextlib.contextmanager
def _taken_port():
    """A port of this machine that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Frames:
    """A `FrameWriter` that keeps what it gets; `on_commit` is called with each number."""

    def __init__(self, on_commit=lambda frame: None) -> None:
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.seen: list[tuple[int, np.ndarray]] = []
        self.on_commit = on_commit

    def next_image(self) -> np.ndarray:
        return self.image

    def commit(self, frame: int) -> None:
        self.seen.append((frame, self.image.copy()))
        self.on_commit(frame)

    @property
    def numbers(self) -> list[int]:
        return [frame for frame, _ in self.seen]


class Stages:
    """A `Progress` that remembers, and cancels once `until` of what it was told is true."""

    def __init__(self, until=lambda *told: False) -> None:
        self.told: list[tuple] = []
        self._until = until

    def update(self, stage, done, total, unit="") -> None:
        self.told.append((stage, done, total, unit))
        if self._until(stage, done, total):
            raise Cancelled("Enough.")


def _prepared(settings) -> RankedGenerator:
    generator = RankedGenerator(settings)
    try:
        generator.prepare(PORTRAIT, ROOM, Stages())
        generator.generate(_chunk(0), Frames())
    except BaseException:
        generator.close()
        raise
    return generator


def _value(frame: int, *, ranks: int, seed: int = 3, portrait: int = 40, loudness: int = 0) -> int:
    return (seed + portrait + 10 * ranks + frame + loudness) % 256


# ------------------------------------------------------------------------------------------------------ what works


def test_a_session_of_two_ranks(tmp_path, nothing_left):
    """One group serves it all, because starting one takes seconds."""
    (tmp_path / "watch").touch()
    generator = RankedGenerator(_settings(tmp_path))
    (tmp_path / "load").touch()
    # The slowest rank counts: rank 0 says 1 of 4. Loading ends once that has arrived.
    stages = Stages(lambda *told: told[:3] == ("model", 1.0, 5.0) and (tmp_path / "load").unlink(missing_ok=True))
    notices = generator.prepare(PORTRAIT, ROOM, stages)
    assert [notice.message for notice in notices] == ["Room for 640x360."]
    assert stages.told[0] == ("ranks", 0.0, 2.0, "ranks")
    assert ("model", 1.0, 5.0, "files") in stages.told and ("model", 1.0, 4.0, "files") not in stages.told

    _every_frame_is_told_when_it_is_made(generator, tmp_path)
    assert [notice.message for notice in generator.take_notices()] == ["Chunk 1."]
    _sound_reaches_all_ranks(generator)
    _another_portrait_shares_the_ranks(generator, tmp_path)
    _nothing_listens_beyond_the_loopback(generator)
    generator.reset()
    generator.generate(_chunk(9), Frames())
    assert generator.take_notices()[-1].message == "Chunk 1."
    generator.close()
    generator.close()
    assert "rank 1 closed" in (tmp_path / "marks1").read_text(), "asked to leave, not killed"
    nothing_left()


def _every_frame_is_told_when_it_is_made(generator, folder):
    """The ranks make no frame before the test has had the one before it: were frames kept back, nothing would come."""
    (folder / "had-1").touch()
    (folder / "hand_in_hand").touch()
    frames = Frames(lambda frame: (folder / f"had{frame}").touch())
    generator.generate(_chunk(0), frames)
    (folder / "hand_in_hand").unlink()
    assert frames.numbers == [0, 1, 2, 3]
    assert [int(image[0, 0, 0]) for _, image in frames.seen] == [_value(frame, ranks=2) for frame in range(4)]


def _sound_reaches_all_ranks(generator):
    frames = Frames()
    generator.generate(_chunk(1, loudness=50.0), frames)
    assert frames.numbers == [4, 5, 6, 7]
    for frame, image in frames.seen:
        assert (image == _value(frame, ranks=2, loudness=50)).all()


def _another_portrait_shares_the_ranks(generator, folder):
    """And is begun beside the one that runs, which has its frames all the while."""
    before = generator.pids
    assert len(before) == 2 and not (folder / "foreseen").exists()
    (folder / "foresee").touch()
    other = RankedGenerator(_settings(folder))
    stages = Stages()
    beginning = threading.Thread(target=other.prepare, args=(_plain(90), ROOM, stages))
    beginning.start()
    while ("features", 1.0, 2.0, "") not in stages.told:
        time.sleep(0.01)
    meanwhile = Frames()
    generator.generate(_chunk(2), meanwhile)
    assert beginning.is_alive() and meanwhile.numbers == [8, 9, 10, 11]
    (folder / "foresee").unlink()
    beginning.join()
    assert other.pids == before
    for which, portrait in ((generator, 40), (other, 90), (generator, 40)):
        frames = Frames()
        which.generate(_chunk(2), frames)
        assert int(frames.seen[0][1][0, 0, 0]) == _value(8, ranks=2, portrait=portrait)
    other.close()
    _a_portrait_that_is_refused_harms_nobody(generator, folder)
    assert "rank 1 closed" in (folder / "marks1").read_text(), "the other stream alone is closed"


def _a_portrait_that_is_refused_harms_nobody(generator, folder):
    refused = RankedGenerator(_settings(folder))
    with pytest.raises(PortraitError, match="Nobody is to be seen"):
        refused.prepare(_plain(1), ROOM, Stages())
    refused.close()
    generator.generate(_chunk(3), Frames())


def _plain(grey: int) -> Portrait:
    return Portrait(image=np.full((6, 5, 3), grey, np.uint8), name="o", path="", digest="e")


def _nothing_listens_beyond_the_loopback(generator):
    supervisor = psutil.Process(generator.pids[0]).parent()
    family = [supervisor, *supervisor.children(recursive=True)]
    addresses = {
        door.laddr.ip
        for process in family
        for door in process.net_connections(kind="inet")
        if door.status == psutil.CONN_LISTEN
    }
    assert addresses <= {"127.0.0.1", "::1"}
    assert len(family) >= 3


# ---------------------------------------------------------------------------------------------------- what goes wrong


def _cause_trouble(folder: Path, rank: int, what: str, when: str | int) -> None:
    (folder / "trouble").write_text(f"{rank} {what} {when}")


def _failure(generator, chunk, frames) -> GeneratorError:
    with pytest.raises(GeneratorError) as caught:
        generator.generate(chunk, frames)
    return caught.value


@pytest.fixture(scope="module")
def ledger():
    """What this process holds after each failure: descriptors, threads, segments, bytes of memory."""
    return []


@pytest.fixture
def counted(ledger, nothing_left, fixture_module):
    """Enters a line in the ledger after the test, once nothing is left of its ranks."""
    yield
    nothing_left()
    own = psutil.Process()
    descriptors = own.num_handles() if sys.platform == "win32" else own.num_fds()
    in_use = fixture_module("memory_in_use").in_use()
    ledger.append((descriptors, own.num_threads(), _segments(), in_use))


@pytest.mark.parametrize(
    ("rank", "what", "code", "says"),
    [
        (1, "raise", "generator.internal", "Rank 1 stopped because of an internal error: a bug in rank code."),
        (0, "memory", "worker.out_of_memory", "Rank 0 ran out of memory."),
        (1, "stop", "worker.hangs", "One of the ranks has not answered for 3 seconds."),
        (0, "stop", "worker.hangs", "One of the ranks has not answered for 3 seconds."),
    ],
)
def test_a_rank_in_trouble_ends_the_group_after_its_last_good_frame(tmp_path, counted, rank, what, code, says):
    generator = _prepared(_settings(tmp_path, timeout_s=3.0 if what == "stop" else 30.0))
    _cause_trouble(tmp_path, rank, what, 6)
    frames = Frames()
    error = _failure(generator, _chunk(1), frames)
    assert (error.code, error.message) == (code, says)
    assert frames.numbers == [4, 5]
    assert _failure(generator, _chunk(2), Frames()).code == "worker.stopped"
    generator.reset()
    generator.close()


def test_in_a_first_chunk_a_rank_that_compiles_is_left_alone_and_one_that_hangs_is_not(tmp_path, counted):
    """Both are away for longer than all may stand still. What is made in another way may compile once more."""
    generator = RankedGenerator(_settings(tmp_path, still_s=2.0))
    generator.prepare(PORTRAIT, ROOM, Stages())
    _cause_trouble(tmp_path, 1, "compile", 1)
    frames = Frames()
    generator.generate(_chunk(0), frames)
    _cause_trouble(tmp_path, 1, "stand", 6)
    error = _failure(generator, _chunk(1, economy=1), frames)
    assert (error.code, error.message) == ("worker.hangs", "One of the ranks has not answered for 2 seconds.")
    assert frames.numbers == [0, 1, 2, 3, 4, 5]
    assert "rank 1 stands at rank_troubles.py:" in error.detail and "rank 0 stands at " in error.detail
    generator.close()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_from_outside_and_the_group_that_replaces_it(tmp_path, counted, monkeypatch, victim):
    settings = _settings(tmp_path, chunk_s=0.4)
    with _taken_port() as port:
        monkeypatch.setenv("MASTER_PORT", str(port))  # of no account: ranks of one machine use none
        generator = _prepared(settings)
    kill = generator.pids[victim]
    frames = Frames(lambda frame: frame == 5 and os.kill(kill, signal.SIGKILL))
    error = _failure(generator, _chunk(1), frames)
    assert (error.code, error.message) == ("worker.rank_died", f"Rank {victim} was killed.")
    assert frames.numbers[:2] == [4, 5]
    if victim == 1:
        # As a session does it: the next one is prepared before the failed one is closed.
        again = _prepared(settings)
        assert not set(again.pids.values()) & set(generator.pids.values())
        again.close()
    generator.close()


@pytest.mark.parametrize(
    ("what", "kind", "code"),
    [("files", ModelFilesError, "model_files.damaged"), ("disagree", GeneratorError, "worker.disagree")],
)
def test_wrong_files_on_one_rank(tmp_path, counted, what, kind, code):
    """The other rank waits for it in a collective, and must neither hide what it said nor make the user wait."""
    _cause_trouble(tmp_path, 1, what, "prepare")
    generator = RankedGenerator(_settings(tmp_path))
    with pytest.raises(kind) as caught:
        generator.prepare(PORTRAIT, ROOM, Stages())
    assert caught.value.code == code
    assert "rank 1" in caught.value.message + caught.value.detail
    generator.close()


def test_cancelled_while_ranks_load(tmp_path, counted):
    (tmp_path / "load").touch()
    generator = RankedGenerator(_settings(tmp_path))
    with pytest.raises(Cancelled):
        generator.prepare(PORTRAIT, ROOM, Stages(lambda stage, *_: stage == "model"))
    generator.close()


def test_closed_from_another_thread_while_it_generates(tmp_path, counted):
    generator = _prepared(_settings(tmp_path))
    _let_one_frame_come(tmp_path)
    closer = threading.Thread(target=generator.close)
    assert _failure(generator, _chunk(1), Frames(lambda _: closer.start())).code == "worker.stopped"
    closer.join()


def _let_one_frame_come(folder: Path) -> None:
    """Of the second chunk, which never ends then."""
    (folder / "had3").touch()
    (folder / "hand_in_hand").touch()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere ranks look for their parent now and then")
def test_ranks_do_not_outlive_the_process_that_watches_them(tmp_path, counted):
    generator = _prepared(_settings(tmp_path))
    ranks = [psutil.Process(pid) for pid in generator.pids.values()]
    supervisor = ranks[0].parent()
    _let_one_frame_come(tmp_path)
    assert _failure(generator, _chunk(1), Frames(lambda _: supervisor.kill())).code == "worker.supervisor_died"
    generator.close()
    assert psutil.wait_procs(ranks, timeout=10.0)[1] == []


def test_ten_failures_in_a_row_have_left_nothing(ledger):
    """Of the tests above."""
    if len(ledger) < 10:
        pytest.skip("needs the failures of the tests above")
    first, last = ledger[1], ledger[-1]
    # What tests before these had left to the garbage collector may be gone by now.
    assert all(now <= then for now, then in zip(last[:3], first[:3], strict=True)), (first, last)
    assert last[3] - first[3] < 4_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gloo is told to use the interface lo")
def test_torchrun_whose_port_is_taken_ends_and_the_engine_waits_for_the_next(
    tmp_path, place, nothing_left, fixture_module
):
    folder = Path(place) / "door"
    folder.mkdir(mode=0o700)
    generator = RankedGenerator(dataclasses.replace(_settings(tmp_path), ranks_at=str(folder / "engine")))
    preparing = threading.Thread(target=generator.prepare, args=(PORTRAIT, ROOM, Stages()))
    preparing.start()
    with _taken_port() as port:
        refused = _torchrun(folder, port, tmp_path)
        _, said = refused.communicate(timeout=150.0)
    assert refused.returncode != 0 and "EADDRINUSE" in said
    assert preparing.is_alive()
    agent = _torchrun(folder, fixture_module("free_port").free_port(), tmp_path)
    preparing.join()
    frames = Frames()
    generator.generate(_chunk(0), frames)
    assert [int(image[0, 0, 0]) for _, image in frames.seen] == [_value(frame, ranks=1) for frame in range(4)]
    generator.close()
    agent.communicate(timeout=60.0)
    assert agent.returncode == 0
    folder.rmdir()


def _torchrun(folder: Path, port: int, logs: Path) -> subprocess.Popen:
    """One machine with one rank. What torchrun itself leaves in the folder for temporary files is its own affair."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run",
            "--nnodes=1", "--nproc-per-node=1", "--node-rank=0", "--rdzv-backend=static",
            "--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0",
            "-m", "engine.worker.rank", "--engine", str(folder / "engine"),
        ],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "TMPDIR": str(logs)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
