"""The rank program: one process per GPU, all doing the same; rank 0 also talks to the engine.

Started by the engine's supervisor, or by torchrun on several machines:
`torchrun ... -m engine.worker.rank --engine SOCKET`. RANK, WORLD_SIZE and LOCAL_RANK come from the environment.
Exit status: 0 told to leave, 1 a failure that has been recorded, 3 the engine is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.log import set_up_logging
from engine.paths import log_folder
from engine.worker import faults
from engine.worker.channel import LineClosed, connect, key_from_environment
from engine.worker.ending import ENGINE_GONE, end_with_parent, leave, report
from engine.worker.engine_line import EngineLine
from engine.worker.messages import ToRank
from engine.worker.rank_program import RankProgram

logger = logging.getLogger(__name__)

_BACKGROUND_NICE = 5
_BELOW_NORMAL_PRIORITY_CLASS = 0x4000


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to leave; the exit status."""
    options = _parser().parse_args(arguments)
    end_with_parent(options.parent)
    if options.background:
        _give_way()
    rank = int(os.environ["RANK"])
    set_up_logging(folder=log_folder(), name=f"rank-{rank}")
    program: RankProgram | None = None
    line: EngineLine | None = None
    try:
        if rank == 0:
            line = EngineLine(connect(options.engine, key_from_environment(), ToRank, options.wait_s))
        program = RankProgram(rank, int(os.environ["WORLD_SIZE"]), options, line)
        program.serve()
        return 0
    except LineClosed:
        return ENGINE_GONE
    except BaseException as error:
        logger.error("rank %d failed", rank, exc_info=error)
        fault = faults.fault_from(error, rank, options.timeout_s)
        report(fault, program.lockstep if program is not None else None, line)
        return 1


def _give_way() -> None:
    """Before torch is loaded, which keeps a processor busy for seconds: the camera needs it every 40 ms."""
    if sys.platform != "win32":
        nice = os.nice(_BACKGROUND_NICE)
        # Each rank has a session of its own, and on desktops Linux shares the processor out among sessions first.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))
        return
    process = ctypes.windll.kernel32.GetCurrentProcess()
    ctypes.windll.kernel32.SetPriorityClass(process, _BELOW_NORMAL_PRIORITY_CLASS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.worker.rank", description="One rank of a group.")
    parser.add_argument("--engine", required=True, metavar="SOCKET", help="where the engine waits for rank 0")
    parser.add_argument("--store", default="", metavar="FILE", help="rendezvous file; without it torchrun's store")
    parser.add_argument("--timeout-s", type=float, default=20.0, help="a collective that takes longer is an error")
    parser.add_argument("--load-timeout-s", type=float, default=1800.0, help="the same while a model is loaded")
    parser.add_argument("--still-s", type=float, default=60.0, help="meanwhile, how long all ranks may stand still")
    parser.add_argument("--parent", type=int, default=0, metavar="PID", help="leave when this process has ended")
    parser.add_argument("--background", action="store_true", help="let other processes have the processor first")
    parser.add_argument("--wait-s", type=float, default=600.0, help="how long rank 0 waits for the engine")
    return parser


if __name__ == "__main__":
    leave(main())
