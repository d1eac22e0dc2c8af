"""RealtimeKit, asked over a real message bus by a user who may have no priority of his own accord. In its place stands
a service that does what it does, or does not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

jeepney = pytest.importorskip("jeepney")
from jeepney.bus_messages import message_bus  # noqa: E402
from jeepney.io.blocking import open_dbus_connection  # noqa: E402

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root gives priorities away"),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed"),
]

NAME = "org.freedesktop.RealtimeKit1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:tmpdir=/tmp</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>"""

ASKS = """
import json, os, resource, sys, threading, time
import jeepney.io.blocking
from engine.real_time import ask_for_real_time, has_real_time
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)), resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
os.setuid(65534)
said = eval(sys.argv[1])
state = lambda: (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
before, end_s = state(), time.monotonic() + float(sys.argv[2])
while state() == before and time.monotonic() < end_s:
    time.sleep(0.01)
print(json.dumps([said, *state(), resource.getrlimit(resource.RLIMIT_RTTIME)[1]]))
"""


class Kit(threading.Thread):
    """Has the kit's name on the bus. `answer(message)` returns what is sent back, None for nothing."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.calls = []
        self.answer = self.obey
        self._bus = open_dbus_connection(address)
        self._bus.send_and_get_reply(message_bus.RequestName(NAME))

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                message = self._bus.receive()
                if message.header.message_type is jeepney.MessageType.method_call:
                    self.calls.append((message.header.fields[jeepney.HeaderFields.member], *message.body))
                    answer = self.answer(message)
                    if answer is not None:
                        self._bus.send(answer)

    def obey(self, message):
        member, thread, value = self.calls[-1]
        if member == "MakeThreadRealtime":
            os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(value))
        else:
            os.setpriority(os.PRIO_PROCESS, thread, value)
        return jeepney.new_method_return(message)

    def close(self) -> None:
        if self.is_alive():
            self._bus.sock.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._bus.close()


@pytest.fixture
def kit(tmp_path, monkeypatch):
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG)
    command = ["dbus-daemon", "--nofork", "--print-address", f"--config-file={config}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        try:
            address = daemon.stdout.readline().strip()
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
            made = Kit(address)
            made.start()
            yield made
            made.close()
        finally:
            daemon.terminate()


def asked(what: str, within_s: float = 10.0):
    """[what it returned, policy, nice value, hard limit of real time in microseconds] of a thread of nobody."""
    done = subprocess.run([sys.executable, "-c", ASKS, what, str(within_s)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_what_can_be_replaced_gets_real_time_under_the_kits_condition(kit):
    assert asked("ask_for_real_time(is_replaceable=True)") == [
        False, os.SCHED_RR | os.SCHED_RESET_ON_FORK, 0, 200_000
    ]  # fmt: skip
    assert [call[0] for call in kit.calls] == ["MakeThreadRealtime"]


def test_what_cannot_gets_a_higher_priority_and_is_never_ended_for_it(kit):
    said, policy, nice, limit = asked("ask_for_real_time()")
    assert (said, policy, nice, limit) == (False, os.SCHED_OTHER, -11, -1)


def test_doctor_asks_for_a_thread_of_his_own(kit):
    assert asked("has_real_time()", 0.0)[:3] == [True, os.SCHED_OTHER, 0]


@pytest.mark.parametrize("reason", ["refuses", "is silent", "is not there", "has no bus", "has no sense"])
def test_who_gets_nothing_goes_on_without(kit, monkeypatch, reason):
    if reason == "refuses":
        kit.answer = lambda message: jeepney.new_error(message, "org.freedesktop.DBus.Error.AccessDenied")
    elif reason == "is silent":
        kit.answer = lambda message: None
    elif reason == "is not there":
        kit.close()
    else:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", {"has no bus": "unix:path=/none", "has no sense": "?"}[reason])
    assert asked("has_real_time()", 0.0)[:3] == [False, os.SCHED_OTHER, 0]
