"""The camera process: takes pictures from shared memory and feeds one camera, apart from the engine.

A driver that hangs, a library that crashes or holds the interpreter, and a licence that differs (pyvirtualcam is
GPLv2) all stay in here. Started as `python -m engine.camera.process CONFIG`, with CONFIG a JSON object. A line on
standard input means that a new picture is there; its end means to leave. Every second, and at each change, one JSON
line goes out: `{"started": true}`, `{"opened": ...}`, `{"sent": n, "lost": n}` or `{"error": {...}}`. Lost are pictures
that were overwritten before this process had them, and those that the camera had no room for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time

import numpy as np

from engine.camera.backends import CameraBackend, open_backend
from engine.errors import CameraError, StandinError
from engine.log import set_up_logging
from engine.paths import log_folder
from engine.protocol.shared_memory import FrameReader
from engine.real_time import ask_for_real_time

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.5
_LEAVE_WITHIN_S = 1.5


def main(config: dict) -> int:
    """Feed the camera until standard input ends; 1 after an error, which has been reported."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a driver prints must not reach the protocol
    _say(report, started=True)
    try:
        reader = FrameReader(config["memory"])
        camera = open_backend(config["backend"], config["device"], config["width"], config["height"], config["fps"])
    except StandinError as error:
        logger.info("%s could not be opened: %s", config["device"], error)
        _say(report, error=_described(error))
        return 1
    except Exception as error:
        logger.info("%s could not be opened", config["device"], exc_info=error)
        _say(report, error=_described(CameraError(f"The camera could not be opened: {error}.", detail=repr(error))))
        return 1
    logger.info("feeding %s (%s) through %s", camera.label, camera.device, config["backend"])
    _say(report, opened={"label": camera.label, "device": camera.device})
    ask_for_real_time(is_replaceable=True)
    try:
        return _feed(camera, reader, report)
    finally:
        camera.close()
        reader.close()


def _feed(camera: CameraBackend, reader: FrameReader, report) -> int:
    picture = np.empty((reader.height, reader.width, 3), np.uint8)
    sent, said_s, not_for_us = 0, time.monotonic(), 0
    # Unbuffered: of several notices that wait, one is enough, since the newest picture is what counts.
    while os.read(0, 4096):
        taken = reader.newest(picture)
        if taken is not None:
            try:
                camera.send(taken[1])
            except Exception as error:
                logger.info("%s failed", camera.device, exc_info=error)
                cause = error if isinstance(error, StandinError) else CameraError(f"The camera failed: {error}.")
                _say(report, error=_described(cause))
                return 1
            if sent == 0:
                not_for_us = reader.missed  # what came before this process did
            sent += 1
        now_s = time.monotonic()
        if sent == 1 or now_s - said_s >= _REPORT_EVERY_S:
            said_s = now_s
            lost = reader.missed - not_for_us + getattr(camera, "dropped", 0)
            _say(report, sent=sent, lost=lost, sequence=taken[0] if taken else 0)
    logger.info("%s is no longer fed, after %d pictures", camera.device, sent)
    # A driver that hangs while closing must not keep this process, and with it the device, alive.
    threading.Timer(_LEAVE_WITHIN_S, os._exit, (1,)).start()
    return 0


def _described(error: StandinError) -> dict:
    return {"code": error.code, "message": error.message, "hint": error.hint, "detail": error.detail}


def _say(report, **message) -> None:
    try:
        report.write(json.dumps(message) + "\n")
        report.flush()
    except (BrokenPipeError, OSError):
        pass  # the engine is gone; the end of standard input follows


if __name__ == "__main__":
    set_up_logging(folder=log_folder(), name="camera")
    status = main(json.loads(sys.argv[1]))
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
