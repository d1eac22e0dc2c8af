"""Log files: private, bounded, and done without where there can be none."""

from __future__ import annotations

import logging
import os
import stat
import sys

import pytest

from engine import log
from engine.log import set_up_logging, take_down_logging

logger = logging.getLogger("engine.test")


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    level = root.level
    yield
    take_down_logging()
    root.setLevel(level)


def rights(path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps profiles apart by itself")
def test_the_log_is_private_from_the_beginning_also_an_older_one(tmp_path):
    before = os.umask(0)
    try:
        set_up_logging(folder=tmp_path / "logs")
        path = tmp_path / "logs" / "standin.log"
        assert not path.parent.exists(), "nothing to write yet"
        logger.info("one")
        assert rights(path) == 0o600 and rights(path.parent) == 0o700
        path.chmod(0o644)
        set_up_logging(folder=tmp_path / "logs")
        logger.info("two")
        assert rights(path) == 0o600 and [line.split(": ")[-1] for line in path.read_text().splitlines()] == [
            "one",
            "two",
        ]
    finally:
        os.umask(before)


def test_set_up_again_nothing_is_written_twice(tmp_path, capsys):
    for name in ("a", "b"):
        set_up_logging(folder=tmp_path, name=name)
    logger.warning("hello")
    assert not (tmp_path / "a.log").exists() and (tmp_path / "b.log").read_text().count("hello") == 1
    assert capsys.readouterr().err == "WARNING: hello\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_a_traceback_is_for_the_file_and_for_who_asks_for_everything(tmp_path, capsys, verbose):
    set_up_logging(folder=tmp_path, verbose=verbose)
    try:
        raise ValueError("out of beans")
    except ValueError:
        logger.exception("it failed")
    told = capsys.readouterr().err
    assert told.startswith("ERROR: it failed\n") and ("Traceback" in told) is verbose
    kept = (tmp_path / "standin.log").read_text()
    assert "Traceback" in kept and "out of beans" in kept


def test_debug_is_kept_only_when_asked_for(tmp_path):
    for is_verbose in (False, True):
        set_up_logging(folder=tmp_path, verbose=is_verbose)
        logger.debug("detail %s", is_verbose)
    assert "detail True" in (tmp_path / "standin.log").read_text()
    assert "detail False" not in (tmp_path / "standin.log").read_text()


@pytest.mark.parametrize("can_rename", [True, False])
def test_size_is_bounded(tmp_path, monkeypatch, can_rename):
    """Windows cannot rename what another process has open."""
    monkeypatch.setattr(log, "_MOST_BYTES", 10_000)
    if not can_rename:
        monkeypatch.setattr(logging.handlers.os, "rename", lambda *_: (_ for _ in ()).throw(PermissionError("in use")))
    set_up_logging(folder=tmp_path)
    for number in range(2000):
        logger.info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert len(files) == (4 if can_rename else 1)
    assert all(path.stat().st_size <= 10_000 for path in files)
    assert "line 1999" in (tmp_path / "standin.log").read_text()


def test_two_processes_that_rotate_at_once_lose_no_log(tmp_path, monkeypatch):
    """The other one has taken away what was there a moment ago."""
    monkeypatch.setattr(log, "_MOST_BYTES", 10_000)
    set_up_logging(folder=tmp_path)
    remove, taken = os.remove, []

    def remove_late(path):
        remove(path)
        if not taken:
            taken.append(path)
            raise FileNotFoundError(path)

    monkeypatch.setattr(logging.handlers.os, "remove", remove_late)
    for number in range(2000):
        logger.info("line %d", number)
    assert taken and "line 1999" in (tmp_path / "standin.log").read_text()


def test_log_that_cannot_be_written_is_told_once(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file in the folder's place")
    set_up_logging(folder=tmp_path / "logs")
    logger.info("one")
    logger.info("two")
    logger.warning("three")
    told = capsys.readouterr().err
    assert told.count("No log file can be written") == 1 and told.count("\n") == 2 and "three" in told
