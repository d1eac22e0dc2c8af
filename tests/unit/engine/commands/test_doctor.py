"""`standin doctor` prints findings and returns whether something will not work."""

from __future__ import annotations

import argparse
import json

import pytest

from engine.commands import doctor
from engine.diagnosis.catalogue import Finding
from engine.diagnosis.fixes import FIXES, Fix
from engine.errors import UsageError

GOOD = Finding(name="Python", state="good", message="Python 3.12.")
LIMITED = Finding(name="face models", state="limited", message="They are missing.", hint="Run setup.")
BAD = Finding(name="camera", state="bad", message="No driver.", hint="Install it.", code="camera.no_driver")


@pytest.fixture
def examined(monkeypatch, capsys):
    """(exit status, printed text) for given findings."""

    def run(*findings, as_json=False):
        monkeypatch.setattr(doctor, "examine", lambda: list(findings))
        status = doctor.run(argparse.Namespace(json=as_json, fix=None, yes=False))
        return status, capsys.readouterr().out

    return run


def test_only_what_will_not_work_is_a_failure(examined):
    assert examined(GOOD)[0] == 0
    assert examined(GOOD, LIMITED)[0] == 0
    assert examined(BAD, GOOD)[0] == 1
    assert examined(BAD, as_json=True)[0] == 1


def test_each_finding_is_a_line_with_its_remedy_below(examined):
    *lines, logs = examined(GOOD, LIMITED, BAD)[1].splitlines()
    assert logs.startswith("Logs: ")
    assert lines == [
        "ok       Python: Python 3.12.",
        "limited  face models: They are missing.",
        "         Run setup.",
        "PROBLEM  camera: No driver.",
        "         Install it.",
        "         (camera.no_driver)",
    ]


def test_json_has_every_field(examined):
    (finding,) = json.loads(examined(BAD, as_json=True)[1])
    assert finding == {
        "name": "camera", "state": "bad", "message": "No driver.", "hint": "Install it.", "code": "camera.no_driver",
        "title": "", "fix": "", "command": "",
    }  # fmt: skip


FOLDER = Finding(
    name="recording", state="limited", message="It is missing.", code="recording.no_folder", fix="automatic"
)
DRIVER = Finding(
    name="camera",
    state="bad",
    message="Not loaded.",
    code="camera.not_loaded",
    fix="command",
    command="sudo modprobe x",
)


@pytest.fixture
def fix(monkeypatch, capsys):
    """(exit status, printed text, times done) of `--fix` with an answer typed on a terminal, or no terminal."""

    def run(code, *findings, answer=None, is_agreed=False):
        done = []
        monkeypatch.setattr(doctor, "examine", lambda: list(findings))
        made = Fix(what="Create it", apply=lambda: done.append(1) or "It was created.")
        monkeypatch.setitem(FIXES, "recording.no_folder", made)
        monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
        monkeypatch.setattr("builtins.input", lambda question: print(question) or answer)
        status = doctor.run(argparse.Namespace(json=False, fix=code, yes=is_agreed))
        return status, capsys.readouterr().out, len(done)

    return run


def test_fix_asks_first(fix):
    status, out, done = fix("recording.no_folder", FOLDER, answer="n")
    assert (status, done) == (1, 0) and "Create it? [y/N]" in out and "Nothing was changed." in out
    status, out, done = fix("recording.no_folder", FOLDER, answer="y")
    assert (status, done) == (0, 1) and "It was created." in out
    assert fix("recording.no_folder", FOLDER, is_agreed=True)[2] == 1
    with pytest.raises(UsageError):
        fix("recording.no_folder", FOLDER)


def test_what_needs_root_is_only_told(fix):
    status, out, _ = fix("camera.not_loaded", DRIVER, is_agreed=True)
    assert status == 1 and "    sudo modprobe x" in out


def test_nothing_found_is_nothing_done(fix):
    status, out, done = fix("recording.no_folder", GOOD, is_agreed=True)
    assert (status, done) == (0, 0) and "nothing to fix" in out


def test_what_nobody_can_do_is_refused(fix):
    with pytest.raises(UsageError):
        fix("camera.no_driver", BAD, is_agreed=True)
