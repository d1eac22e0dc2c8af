"""What judges a soak: pictures as a camera gives them, and runs that were made up."""

from __future__ import annotations

import importlib
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


def _failed(rows):
    return [row.what for row in rows if not row.holds]


def test_even_pictures_hold_and_each_flaw_is_found(soak):
    judge, even = soak("judge"), np.arange(0, 60, 0.04)
    assert _failed(judge.judge_pictures(_session(soak, 60.0), _pictures(soak, even))) == []
    with_gap = np.delete(even, [700, 701, 702])
    assert _failed(judge.judge_pictures(_session(soak, 60.0), _pictures(soak, with_gap))) == ["longest gap"]
    slow = np.arange(0, 60, 0.041)
    assert _failed(judge.judge_pictures(_session(soak, 60.0), _pictures(soak, slow))) == [
        "pictures a second at the camera"
    ]
    burst = np.sort(np.concatenate([even, 30 + 0.001 * np.arange(4)]))
    assert _failed(judge.judge_pictures(_session(soak, 60.0), _pictures(soak, burst))) == [
        "most pictures within 100 ms"
    ]


def test_time_without_a_camera_counts_only_until_it_should_be_back(soak):
    judge, even = soak("judge"), np.arange(0, 60, 0.04)
    session = _session(soak, 60.0, [("suspended", 20.0, 30.0)])
    back = even[(even < 20) | (even > 30.5)]
    assert _failed(judge.judge_pictures(session, _pictures(soak, back))) == []
    late = even[(even < 20) | (even > 34)]
    assert _failed(judge.judge_pictures(session, _pictures(soak, late))) == ["picture again after: suspended"]


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
