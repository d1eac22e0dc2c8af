"""What judges a soak: pictures as a camera gives them, and runs that were made up."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def soak(monkeypatch):
    """A module of this folder by its name; they are programs, and not installed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module


@pytest.mark.parametrize("number", [1, 2, 777, 90_000, (1 << 20) - 1])
@pytest.mark.parametrize("size", [(640, 360), (1280, 720)])
def test_marks_are_read_back_from_the_cameras_format(soak, number, size):
    marks = soak("marks")
    portrait = np.full((800, 600, 3), 128, np.uint8)
    marks.write(portrait, number, marks.GREY + 40)
    height = round(size[0] * 800 / 600)
    scaled = cv2.resize(portrait, (size[0], height))
    top = (height - size[1]) // 3
    canvas = np.ascontiguousarray(scaled[top : top + size[1]])
    luma = cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_YUY2).reshape(size[1], -1)[size[1] // 2, ::2]
    found, click = marks.read(luma)
    assert found == number and abs(marks.click_in_frame_s(click) - 0.010) < 0.001
    assert marks.read(np.full(size[0], 20, np.uint8)) is None


def _session(soak, seconds, faults=()):
    session, faults_module = soak("session"), soak("faults")
    made = session.Session(name="x", start_s=0.0, end_s=seconds, status=0)
    for name, start_s, end_s in faults:
        fault = faults_module.Fault(name=name, seconds=end_s - start_s, act=lambda: lambda: None, is_gone=True)
        made.happened.append(session.Happened(fault=fault, start_s=start_s, end_s=end_s))
    return made


def _pictures(soak, times_s):
    times_s = np.asarray(times_s)
    count = len(times_s)
    return soak("judge").Pictures(at_s=times_s, number=np.arange(1, count + 1), click=np.zeros(count, int))


def _witness(soak, *stills):
    """Of (end, length) in s of times in which a core stood still."""
    table = np.array(stills, float).reshape(-1, 2)
    return soak("judge").Witness(at_s=table[:, 0], late_s=table[:, 1])


def _judged(soak, session, times_s, *stills):
    return soak("judge").judge_pictures(session, _pictures(soak, times_s), _witness(soak, *stills))


def _failed(rows):
    return [row.what for row in rows if not row.holds]


def test_even_pictures_hold_and_each_flaw_is_found(soak):
    even = np.arange(0, 60, 0.04)
    assert _failed(_judged(soak, _session(soak, 60.0), even)) == []
    with_gap = np.delete(even, [700, 701, 702])
    assert _failed(_judged(soak, _session(soak, 60.0), with_gap)) == ["longest gap"]
    slow = np.arange(0, 60, 0.041)
    assert _failed(_judged(soak, _session(soak, 60.0), slow)) == ["pictures a second at the camera"]
    burst = np.sort(np.concatenate([even, 30 + 0.001 * np.arange(4)]))
    assert _failed(_judged(soak, _session(soak, 60.0), burst)) == ["most pictures within 100 ms"]


@pytest.mark.parametrize(
    ("stills", "holds"),
    [
        ([], False),
        ([(30.07, 0.020)], False),
        ([(30.07, 0.029)], False),
        ([(30.07, 0.031)], True),
        ([(30.10, 0.060)], True),
        ([(30.16, 0.060)], True),  # 50 ms of it inside
        ([(30.19, 0.060)], False),  # 20 ms of it inside
        ([(30.02, 0.060)], False),
        ([(29.90, 0.060), (30.30, 0.060)], False),
        ([(30.04, 0.025), (30.14, 0.025)], False),  # one after the other: the longest counts
        ([(30.10, 0.025), (30.10, 0.025)], False),  # two cores at once: the same time
        ([(30.00, 0.050), (30.14, 0.035)], True),
    ],
)
def test_a_gap_may_be_longer_only_by_what_a_core_stood_still_inside_of_it(soak, stills, holds):
    even = np.arange(0, 60, 0.04)
    with_gap = np.concatenate([even[even <= 30], 30.15 + np.arange(0, 29.8, 0.04)])
    rows = _judged(soak, _session(soak, 60.0), with_gap, *stills)
    assert _failed(rows) == ([] if holds else ["longest gap"])
    found = next(row.found for row in rows if row.what == "longest gap")
    assert found.startswith("150 ms")


def test_both_the_gap_and_the_longest_that_a_core_stood_still_are_told(soak):
    with_gap = np.delete(np.arange(0, 60, 0.04), [700, 701, 702])
    rows = _judged(soak, _session(soak, 60.0), with_gap, (27.9, 0.0001), (28.1, 0.060), (40.0, 0.090), (70.0, 0.5))
    told = {row.what: row.found for row in rows}
    assert told["longest gap"] == "160 ms, 100 ms but for cores that stood still"
    assert told["longest that a core stood still"] == "90 ms (over 20 ms: 2)"


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (None, "there was no witness"),
        ("", "it has said nothing"),
        ("no real-time priority, or no account of it: [Errno 1] no\n30.1 0 0.0600\n", "no real-time priority"),
        ("real time 99\n", "the witness said nothing"),
        ("real time 99\n30.1000 0 0.0600\n30.2 1 0.", ""),
    ],
)
def test_who_had_no_priority_excuses_nothing_and_it_is_said(soak, tmp_path, log, problem):
    judge, path = soak("judge"), tmp_path / "witness.log"
    if log is not None:
        path.write_text(log)
    witness = judge.read_witness(path)
    assert witness.still_s(30.0, 30.2) == (0.0 if problem else pytest.approx(0.060))
    rows = judge.judge_pictures(_session(soak, 60.0), _pictures(soak, np.arange(0, 60, 0.04)), witness)
    found = next(row.found for row in rows if row.what == "longest that a core stood still")
    assert problem in found and found.startswith("not known: " if problem else "60 ms (over 20 ms: 1)")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such priorities")
def test_the_witness_says_that_it_has_no_priority(soak, tmp_path, monkeypatch):
    witness = soak("witness")

    def refuse(*_arguments):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(witness.os, "sched_setscheduler", refuse, raising=False)
    monkeypatch.setattr(witness.sys, "argv", ["witness.py", str(tmp_path / "log")])
    witness.main()
    assert soak("judge").read_witness(tmp_path / "log").problem.startswith("no real-time priority")


def test_time_without_a_camera_counts_only_until_it_should_be_back(soak):
    even = np.arange(0, 60, 0.04)
    session = _session(soak, 60.0, [("suspended", 20.0, 30.0)])
    back = even[(even < 20) | (even > 30.5)]
    assert _failed(_judged(soak, session, back)) == []
    late = even[(even < 20) | (even > 34)]
    assert _failed(_judged(soak, session, late)) == ["picture again after: suspended"]


def test_memory_that_creeps_is_found_and_a_step_at_a_fault_is_not(soak):
    measure, judge = soak("measure"), soak("judge")
    session = _session(soak, 600.0, [("suspended", 200.0, 230.0)])

    def rows(memory_mb):
        session.samples = [
            measure.Sample(at_s=float(t), role="engine", pid=7, memory_mb=memory_mb(t), files=20)
            for t in range(0, 600, 10)
        ]
        return judge.judge_processes(session)

    assert _failed(rows(lambda t: 200.0 + (50.0 if t > 210 else 0.0))) == []
    assert _failed(rows(lambda t: 200.0 + 0.05 * t)) == ["memory of the engine"]
