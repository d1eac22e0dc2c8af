"""The child process: lines, ends, and the ladder that ends it for certain."""

from __future__ import annotations

import sys

import psutil
import pytest

from app.engine_client.process import EngineProcess
from engine.protocol import messages as m
from engine.protocol.codec import decode_event, encode


@pytest.fixture
def start(qapp, fake_command):
    made = []

    def begin(mode_or_command, stop_within_ms=(2_000, 300, 5_000)) -> EngineProcess:
        command = fake_command(mode_or_command) if isinstance(mode_or_command, str) else mode_or_command
        made.append(EngineProcess(command, stop_within_ms=stop_within_ms))
        made[-1].lines = []
        made[-1].line_received.connect(made[-1].lines.append)
        made[-1].start()
        return made[-1]

    yield begin
    for process in made:
        process.finish()


def test_lines_come_whole_and_go_out(qtbot, start):
    process = start("obedient")
    qtbot.waitUntil(lambda: len(process.lines) == 1)
    assert decode_event(process.lines[0]).pid == process.pid
    assert process.write(encode(m.Ping(id=5)))
    qtbot.waitUntil(lambda: len(process.lines) == 2)
    assert decode_event(process.lines[1]) == m.Reply(id=5)


def test_a_line_without_end_is_thrown_away_and_what_follows_is_read(qtbot, start):
    process = start([sys.executable, "-c", "import sys; sys.stdout.write('x' * (3 << 20)); print(); print('after')"])
    with qtbot.waitSignal(process.ended):
        pass
    assert process.lines[-1] == b"after" and all(len(line) < 1 << 20 for line in process.lines)


def test_a_program_that_cannot_be_started_ends_with_a_sentence(qtbot, start, tmp_path):
    process = EngineProcess([str(tmp_path / "nothing")])
    with qtbot.waitSignal(process.ended) as ended:
        process.start()
    assert ended.args[0].sentence() == "The engine could not be started."
    assert process.pid == 0 and not process.write(b"{}\n")


def test_the_end_is_told_with_its_code_and_last_words(qtbot, start):
    code = "import sys; print('some trouble', file=sys.stderr); sys.exit(3)"
    with qtbot.waitSignal(start([sys.executable, "-c", code]).ended) as ended:
        pass
    assert ended.args[0].sentence() == "The engine ended with code 3."
    assert ended.args[0].stderr_tail == "some trouble"


def test_a_killed_engine_has_crashed(qtbot, start):
    process = start("obedient")
    qtbot.waitUntil(lambda: len(process.lines) > 0)
    with qtbot.waitSignal(process.ended) as ended:
        process.kill()
    assert ended.args[0].has_crashed == (sys.platform != "win32")


def test_stopping_does_not_wait_and_is_told_once(qtbot, start):
    process = start("obedient")
    qtbot.waitUntil(lambda: len(process.lines) > 0)
    ends, stops = [], []
    process.ended.connect(ends.append)
    process.stopped.connect(lambda: stops.append(1))
    pid = process.pid
    process.stop()
    process.stop()
    assert process.is_stopping and psutil.pid_exists(pid), "it returned before the engine had ended"
    assert not process.write(encode(m.Ping(id=1))), "nothing is said to an engine that is leaving"
    qtbot.waitUntil(lambda: stops == [1])
    assert ends == [] and process.pid == 0 and not psutil.pid_exists(pid)


def test_an_engine_that_ignores_everything_is_killed(qtbot, start):
    process = start("stubborn", stop_within_ms=(50, 50, 5_000))
    qtbot.waitUntil(lambda: len(process.lines) > 0)
    pid = process.pid
    with qtbot.waitSignal(process.stopped):
        process.stop()
    assert not psutil.pid_exists(pid)


def test_finish_waits_through_the_whole_ladder(qtbot, start):
    process = start("stubborn", stop_within_ms=(50, 50, 5_000))
    qtbot.waitUntil(lambda: len(process.lines) > 0)
    pid = process.pid
    process.finish()
    assert process.pid == 0 and not psutil.pid_exists(pid)


def test_stopping_nothing_is_over_at_once(qtbot, start):
    process = EngineProcess(["nothing"])
    with qtbot.waitSignal(process.stopped, timeout=0):
        process.stop()
