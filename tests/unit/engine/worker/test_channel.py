"""The line between engine and rank 0: who gets in, what arrives, and what is left of the door."""

import contextlib
import os
import subprocess
import sys
import threading
from multiprocessing.connection import Client

import pytest

from engine.errors import GeneratorError, ProtocolError
from engine.worker import channel
from engine.worker.channel import KEY_VARIABLE, Doorway, LineClosed, check_door, connect, key_from_environment
from engine.worker.launcher import AwaitedRanks
from engine.worker.messages import MAX_MESSAGE_BYTES, Credit, Exit, Hello, ToEngine, ToRank

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a door there is a named pipe")

KEY = b"a secret of thirty-two bytes...."


@pytest.fixture
def address(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path / "engine")


@pytest.fixture
def door(address):
    made = Doorway(address, KEY, ToEngine)
    yield made
    made.close()


def _both_ends(door, key=KEY):
    rank = connect(door.address, key, ToRank, wait_s=5.0)
    engine = door.wait(5.0)
    assert engine is not None
    return engine, rank


def test_messages_go_both_ways_in_order(door):
    engine, rank = _both_ends(door)
    for slot in range(100):
        engine.send(Credit(slot=slot))
    rank.send(Hello(version=1, ranks=2))
    assert [rank.receive().slot for _ in range(100)] == list(range(100))
    assert engine.poll(5.0)
    assert engine.receive() == Hello(version=1, ranks=2)
    assert not engine.poll(0.0)
    engine.close()
    rank.close()


def test_many_threads_may_send(door):
    engine, rank = _both_ends(door)
    threads = [
        threading.Thread(target=lambda: [rank.send(Hello(version=1, ranks=9)) for _ in range(200)]),
        threading.Thread(target=lambda: [rank.send(Hello(version=2, ranks=8)) for _ in range(200)]),
    ]
    for thread in threads:
        thread.start()
    got = [engine.receive() for _ in range(400)]
    for thread in threads:
        thread.join()
    assert sorted((hello.version, hello.ranks) for hello in got) == [(1, 9)] * 200 + [(2, 8)] * 200
    engine.close()
    rank.close()


def test_the_end_of_one_side_is_seen_by_the_other(door):
    engine, rank = _both_ends(door)
    rank.close()
    assert engine.poll(5.0), "so that nobody waits for what cannot come"
    with pytest.raises(LineClosed):
        engine.receive()
    with pytest.raises(LineClosed):
        engine.send(Exit(number=1))
    engine.close()


def test_only_the_first_comes_in_and_the_socket_goes(door, address):
    engine, rank = _both_ends(door)
    assert not os.path.exists(address)
    with pytest.raises(GeneratorError, match="no engine"):
        connect(address, KEY, ToRank, wait_s=0.0)
    engine.close()
    rank.close()


def test_a_wrong_secret_is_sent_away_and_the_right_one_still_comes_in(door):
    with pytest.raises(GeneratorError, match="another secret"):
        connect(door.address, b"guessed", ToRank, wait_s=5.0)
    assert door.wait(0.0) is None
    engine, rank = _both_ends(door)
    engine.close()
    rank.close()


def test_rubbish_is_an_error_and_not_a_message(door):
    visitor = Client(door.address, "AF_UNIX", authkey=KEY)
    engine = door.wait(5.0)
    visitor.send_bytes(b"rubbish")
    with pytest.raises(ProtocolError):
        engine.receive()
    engine.close()
    visitor.close()


def test_what_is_too_long_is_not_read(door):
    visitor = Client(door.address, "AF_UNIX", authkey=KEY)
    engine = door.wait(5.0)
    sender = threading.Thread(target=_send_all, args=(visitor, bytes(MAX_MESSAGE_BYTES + 1)))
    sender.start()
    with pytest.raises(LineClosed):
        engine.receive()
    engine.close()
    sender.join()
    visitor.close()


def _send_all(visitor, data):
    with contextlib.suppress(OSError):  # nobody takes it
        visitor.send_bytes(data)


def test_a_door_that_nobody_came_to_closes(address):
    before = threading.active_count()
    door = Doorway(address, KEY, ToEngine)
    door.close()
    door.close()
    assert not os.path.exists(address)
    assert threading.active_count() == before


def test_a_rank_waits_for_its_engine(address):
    found = []
    waiting = threading.Thread(target=lambda: found.append(connect(address, KEY, ToRank, wait_s=20.0)))
    waiting.start()
    door = Doorway(address, KEY, ToEngine)
    engine = door.wait(20.0)
    waiting.join()
    assert engine is not None
    engine.close()
    found[0].close()


def test_the_secret_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "00ff10")
    assert key_from_environment() == b"\x00\xff\x10"
    monkeypatch.delenv(KEY_VARIABLE)
    assert key_from_environment() is None


# ---------------------------------------------------------------------------------------------- doors without a secret


def test_a_folder_of_ones_own_will_do(address):
    check_door(address)


@pytest.mark.parametrize("rights", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(tmp_path, rights):
    tmp_path.chmod(rights)
    with pytest.raises(GeneratorError, match="open to others") as caught:
        check_door(str(tmp_path / "engine"))
    assert "chmod 700" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(GeneratorError, match="not there") as caught:
        check_door(str(tmp_path / "none" / "engine"))
    assert "mkdir" in caught.value.hint


def test_a_path_that_no_socket_can_have_is_refused(tmp_path):
    with pytest.raises(GeneratorError, match="too long"):
        check_door(str(tmp_path / ("x" * 100)))


def test_what_a_killed_engine_left_is_no_hindrance(address):
    program = (
        "import sys, time; from engine.worker.channel import Doorway; door = Doorway(sys.argv[1], None, None);"
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, address], stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        engine.kill()
    assert os.path.exists(address)
    check_door(address)
    door = Doorway(address, None, ToEngine)
    for end in _both_ends(door, key=None):
        end.close()
    assert os.listdir(os.path.dirname(address)) == []


def test_an_engine_that_waits_is_left_alone(address):
    """Also by the question whether it is there: it gives the line to the first that comes."""
    first = Doorway(address, None, ToEngine)
    with pytest.raises(GeneratorError, match="Another engine") as caught:
        AwaitedRanks(address)
    assert caught.value.code == "worker.door"
    assert first.wait(0.5) is None
    for end in _both_ends(first, key=None):
        end.close()


def test_a_door_whose_listener_fails_leaves_its_place_to_the_next(address, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(channel, "Listener", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            Doorway(address, None, ToEngine)
    Doorway(address, None, ToEngine).close()


def test_two_engines_never_have_the_same_place(address):
    """Each removes the file with the lock when it leaves, while others try to have it."""
    inside, most, entries = [], [], []

    def engine() -> None:
        for _ in range(300):
            with contextlib.suppress(GeneratorError), channel._claimed(address):
                inside.append(1)
                most.append(len(inside))
                entries.append(1)
                inside.pop()

    threads = [threading.Thread(target=engine) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entries and max(most) == 1


def test_a_place_that_cannot_be_locked_is_refused(address, monkeypatch):
    def flock(handle, how):
        raise OSError(37, "No locks available")

    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    monkeypatch.setattr(channel.fcntl, "flock", flock)
    with pytest.raises(GeneratorError, match="cannot be locked"):
        Doorway(address, None, ToEngine)
    assert (len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0) == before


def test_a_file_in_the_way_is_kept(address):
    with open(address, "w") as file:
        file.write("mine")
    with pytest.raises(GeneratorError, match="no socket"):
        check_door(address)
    assert os.path.getsize(address) == 4


def test_the_family_is_never_the_network():
    assert channel._FAMILY == "AF_UNIX"
