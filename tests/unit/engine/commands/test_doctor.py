"""`standin doctor` prints findings and returns whether something will not work."""

from __future__ import annotations

import argparse
import json

import pytest

from engine.commands import doctor
from engine.doctor import Finding

GOOD = Finding(name="Python", state="good", message="Python 3.12.")
LIMITED = Finding(name="face models", state="limited", message="They are missing.", hint="Run setup.")
BAD = Finding(name="camera", state="bad", message="No driver.", hint="Install it.", code="camera.no_driver")


@pytest.fixture
def examined(monkeypatch, capsys):
    """(exit status, printed text) for given findings."""

    def run(*findings, as_json=False):
        monkeypatch.setattr(doctor, "examine", lambda devices: list(findings))
        status = doctor.run(argparse.Namespace(json=as_json))
        return status, capsys.readouterr().out

    return run


def test_only_what_will_not_work_is_a_failure(examined):
    assert examined(GOOD)[0] == 0
    assert examined(GOOD, LIMITED)[0] == 0
    assert examined(BAD, GOOD)[0] == 1
    assert examined(BAD, as_json=True)[0] == 1


def test_each_finding_is_a_line_with_its_remedy_below(examined):
    assert examined(GOOD, LIMITED, BAD)[1].splitlines() == [
        "ok       Python: Python 3.12.",
        "limited  face models: They are missing.",
        "         Run setup.",
        "PROBLEM  camera: No driver.",
        "         Install it.",
    ]


def test_json_has_every_field(examined):
    (finding,) = json.loads(examined(BAD, as_json=True)[1])
    assert finding == {
        "name": "camera", "state": "bad", "message": "No driver.", "hint": "Install it.", "code": "camera.no_driver",
    }  # fmt: skip
