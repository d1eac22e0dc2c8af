"""A whole FlashTalk generator on 2 and 3 ranks: shorter chunks, and starts with what is on the ranks' disks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

# On a machine that is busy with other things, ranks take a minute to start.
pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]

JOBS = Path(__file__).with_name("flashtalk_jobs.py")
CHUNKS = 2
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def jobs(module_at):
    """The job file itself, for one rank in this process."""
    return module_at(JOBS)


@pytest.fixture(scope="module")
def options(tiny_checkpoint):
    """10 latent rows, and 30 or 25 tokens for a chunk: what 2 and 3 ranks can share evenly and what they cannot."""
    model, speech = map(str, tiny_checkpoint)
    return {"checkpoint": model, "speech_encoder": speech, "size": "80x16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache for all that have no troubles with it."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("chunk", [21, 17])
def test_a_shorter_chunk_is_that_of_one_rank(chunk, options, folder, rank_pools, jobs):
    arguments = {"options": {**options, "chunk": chunk}, "folders": [folder] * 3, "chunks": CHUNKS}
    alone = jobs.stream(None, **arguments)
    assert alone["frames"].shape == (CHUNKS * (chunk - 5), 80, 16, 3) and alone["frames"].std() > 10
    assert alone["latents"][0].shape[1] == (chunk + 3) // 4
    for world in (2, 3):
        results = rank_pools(world).run(JOBS, "stream", arguments)
        for result in results:
            for part in ("latents", "motion"):
                errors = [_error(*pair) for pair in zip(result[part], alone[part], strict=True)]
                assert max(errors) <= TOLERANCE, (world, part, errors)
                assert all(torch.equal(*pair) for pair in zip(result[part], results[0][part], strict=True))
        assert np.abs(results[0]["frames"].astype(int) - alone["frames"]).max() <= 1
        assert all(result["frames"] is None for result in results[1:])


def _error(got, wanted) -> float:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


# ----------------------------------------------------------------------------------- starts


@pytest.fixture(scope="module")
def warm(options, tmp_path_factory, jobs):
    """The cache that a start of one rank leaves, and what that start made."""
    folder = tmp_path_factory.mktemp("warm")
    return folder, jobs.stream(None, options, [str(folder)], chunks=1)


def _caches(warm: Path, tmp_path: Path, kinds: tuple[str, ...]) -> list[Path]:
    folders = []
    for rank, kind in enumerate(kinds):
        folders.append(tmp_path / f"rank{rank}")
        if kind == "empty":
            folders[-1].mkdir()
            continue
        shutil.copytree(warm, folders[-1])
        entries = sorted((folders[-1] / "flashtalk" / "set-up").iterdir())
        for number, path in enumerate(entries):
            if kind == "broken":
                path.write_bytes(path.read_bytes()[:-5])
            elif kind == "partial" and number == 1:
                path.unlink()
    return folders


@pytest.mark.parametrize(
    "kinds",
    [("warm", "empty"), ("empty", "warm"), ("broken", "warm"), ("partial", "empty"), ("warm", "broken")],
    ids=" and ".join,
)
def test_ranks_go_by_what_rank_0_has(kinds, warm, options, tmp_path, rank_pools):
    """Whatever lies on the others' disks: they neither wait for each other nor make another picture."""
    folders = _caches(warm[0], tmp_path, kinds)
    arguments = {"options": options, "folders": [str(folder) for folder in folders], "chunks": 1}
    first, other = rank_pools(2).run(JOBS, "stream", arguments)
    wanted = warm[1]
    for result in (first, other):
        assert _error(result["latents"][0], wanted["latents"][0]) <= TOLERANCE
    assert np.abs(first["frames"].astype(int) - wanted["frames"]).max() <= 1
    read = first["read"] | other["read"]
    if kinds[0] == "warm":
        assert not read
    elif kinds[0] == "partial":
        assert read and read < wanted["read"]
    else:
        assert read == wanted["read"] and first["read"] != other["read"], "each makes the keys of its layers"
    assert any("made again" in line for line in first["log"]) == (kinds[0] == "broken") and not other["log"]
    stored = folders[0] / "flashtalk" / "set-up"
    assert len(list(stored.iterdir())) == 3 and (kinds[1] != "empty" or not list(folders[1].iterdir()))


def test_a_second_start_of_both_is_the_first_to_the_last_bit(options, tmp_path, rank_pools):
    arguments = {"options": options, "folders": [str(tmp_path)] * 2, "chunks": 1}
    starts = [rank_pools(2).run(JOBS, "stream", arguments) for _ in range(2)]
    assert all(result["read"] for result in starts[0]) and not any(result["read"] for result in starts[1])
    for before, after in zip(*starts, strict=True):
        assert torch.equal(before["latents"][0], after["latents"][0])
    assert np.array_equal(starts[0][0]["frames"], starts[1][0]["frames"])
