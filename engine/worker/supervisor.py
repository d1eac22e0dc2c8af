"""Starts the ranks of one machine with torch's own launcher, and ends them all as soon as one fails or the engine goes.

A process of its own, because the engine does without torch: `python -m engine.worker.supervisor CONFIG`, with CONFIG
a JSON object. The end of standard input means that the ranks are to be killed, whatever they do. One JSON line goes
out for each of `{"started": {rank: pid}}`, `{"fault": {...}}` and `{"done": true}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, Std, start_processes

from engine.worker import faults
from engine.worker.messages import Fault, fault_of

_LOOK_EVERY_S = 0.03
"""The camera has no more frames than for the rest of a chunk."""
_KILL = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL
_KILL_WITHIN_S = 5
_ENGINE_GONE = 3
_TAIL_CHARACTERS = 2000
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}


def main(config: dict[str, Any]) -> int:
    """Start the ranks and stay until they have ended; 0 if they were told to leave."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not reach the reports
    logging.basicConfig(level=logging.INFO)
    engine_gone = threading.Event()
    threading.Thread(target=_watch_engine, args=(engine_gone,), name="engine-watch", daemon=True).start()
    ranks: PContext | None = None
    try:
        ranks = _start(config)
        _say(report, started={str(rank): pid for rank, pid in ranks.pids().items()})
        fault = _watch(ranks, engine_gone, lambda fault: _say(report, fault=msgspec.to_builtins(fault)))
        if fault is None:
            _say(report, done=True)
        engine_gone.wait()  # the engine's door is in the folder: it hangs up when it has closed that
        return 0 if fault is None else 1
    finally:
        if ranks is not None:
            _kill(ranks)
        shutil.rmtree(config["folder"], ignore_errors=True)


def _start(config: dict[str, Any]) -> PContext:
    count = config["ranks"]
    folder = Path(config["folder"])
    arguments = (
        "-m", "engine.worker.rank",
        "--engine", config["engine"],
        "--store", str(folder / "store"),
        "--timeout-s", str(config["timeout_s"]),
        "--load-timeout-s", str(config["load_timeout_s"]),
        "--still-s", str(config["still_s"]),
        "--parent", str(os.getpid()),
        *(["--background"] if config["is_background"] else []),
    )  # fmt: skip
    return start_processes(
        name="ranks",
        entrypoint=sys.executable,
        args=dict.fromkeys(range(count), arguments),
        envs={rank: _environment(rank, count, config["gpus"]) for rank in range(count)},
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )


def _environment(rank: int, count: int, gpus: str) -> dict[str, str]:
    """torchrun's variables for one machine, and the loopback alone for what the ranks say to each other."""
    environment = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
    }
    loopback = _LOOPBACK.get(sys.platform)
    if loopback is not None:
        environment |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    return environment


def _watch_engine(gone: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    gone.set()


def _watch(ranks: PContext, engine_gone: threading.Event, tell: Callable[[Fault], None]) -> Fault | None:
    """What ended the ranks, after it was told, None if they left because they were told to. All have ended then."""
    while not engine_gone.wait(_LOOK_EVERY_S):
        # Asked first: `wait` would give ranks that do not react half a minute before it kills them.
        failed = {rank: status for rank, status in _statuses(ranks).items() if status}
        if failed:
            fault = _cause(ranks, failed)
            if fault is None or fault.is_consequence:
                _kill(ranks)  # what the others have written by then says more
                fault = _cause(ranks, failed) or fault
                if fault is not None:
                    tell(fault)
                return fault
            for pid in ranks.pids().values():
                with contextlib.suppress(OSError):
                    os.kill(pid, _KILL)  # all at once: the engine waits for the end of rank 0
            tell(fault)
            _kill(ranks)
            return fault
        if ranks.wait(timeout=0) is not None:
            return None
    return None


def _statuses(ranks: Any) -> dict[int, int | None]:
    return {rank: handler.proc.poll() for rank, handler in ranks.subprocess_handlers.items()}


def _cause(ranks: PContext, failed: dict[int, int]) -> Fault | None:
    found = []
    for rank, path in ranks.error_files.items():
        fault = faults.recorded(path)
        if fault is None and failed.get(rank, _ENGINE_GONE) != _ENGINE_GONE:
            fault = fault_of(faults.ended(rank, failed[rank], _tail(ranks.stderrs[rank])), rank)
        if fault is not None:
            found.append(fault)
    return faults.cause_of(found)


def _tail(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARACTERS:]
    except OSError:
        return ""


def _kill(ranks: PContext) -> None:
    ranks.close(death_sig=_KILL, timeout=_KILL_WITHIN_S)


def _say(report: Any, **message: Any) -> None:
    with contextlib.suppress(OSError):  # the engine is gone; the end of standard input follows
        report.write(json.dumps(message) + "\n")
        report.flush()


if __name__ == "__main__":
    STATUS = main(json.loads(sys.argv[1]))
    sys.stderr.flush()
    os._exit(STATUS)
