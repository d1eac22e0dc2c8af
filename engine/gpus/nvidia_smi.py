"""Asks the driver's own program `nvidia-smi`, so that no process needs torch to know its GPUs.

It may be missing, fail in many words, or hang together with the driver; each of these has its sentence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence

from engine.errors import DeviceError

_TIMEOUT_S = 20.0
"""Without the persistence daemon the driver starts anew for each question, about a second for each GPU."""
_DIES_WITHIN_S = 1.0
_PLACES = (
    "/usr/lib/wsl/lib/nvidia-smi",
    r"C:\Windows\System32\nvidia-smi.exe",
    r"C:\Program Files\NVIDIA Corporation\NVSMI\nvidia-smi.exe",
)
_FAILURES = (
    (
        "couldn't communicate with the NVIDIA driver",
        "gpu.driver_not_running",
        "The NVIDIA driver is installed but not running.",
        "Install the driver again for the running kernel, then restart the computer.",
    ),
    (
        "Driver/library version mismatch",
        "gpu.driver_mismatch",
        "The NVIDIA driver was updated while the old one was in use.",
        "Restart the computer.",
    ),
    (
        "No devices were found",
        "gpu.none",
        "The NVIDIA driver finds no GPU.",
        "Check that the GPU is seated and powered; a container must be given its GPUs.",
    ),
    (
        "GPU is lost",
        "gpu.lost",
        "A GPU has stopped to answer its driver.",
        "Restart the computer.",
    ),
    (
        "Insufficient Permissions",
        "gpu.forbidden",
        "This user may not use the NVIDIA GPU.",
        "Give the user access to the devices /dev/nvidia*.",
    ),
    (
        "is not a valid field to query",
        "gpu.driver_old",
        "The NVIDIA driver is too old to be asked about its GPUs.",
        "Install driver 525 or newer.",
    ),
    (
        "NVML",
        "gpu.driver_failed",
        "The NVIDIA driver cannot be reached.",
        "Restart the computer, or the container if this is one.",
    ),
)

Run = Callable[[Sequence[str]], str]
"""Runs nvidia-smi with arguments and gives its output; raises `DeviceError`."""


def run_nvidia_smi(arguments: Sequence[str], timeout_s: float = _TIMEOUT_S) -> str:
    """Its standard output. Raises `DeviceError` when it is missing, fails, or is not done after `timeout_s`."""
    program = shutil.which("nvidia-smi") or next((place for place in _PLACES if os.path.isfile(place)), None)
    if program is None:
        raise DeviceError(
            "No NVIDIA driver is installed: its program nvidia-smi is not there.",
            code="gpu.no_driver",
            hint="If there is an NVIDIA GPU, install its driver; the puppet needs none.",
        )
    try:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise DeviceError(
            f"{program} cannot be started: {error.strerror or error}.",
            code="gpu.driver_failed",
            hint="Install the NVIDIA driver again.",
        ) from error
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _abandon(process)
        raise DeviceError(
            f"The NVIDIA driver has not answered for {timeout_s:.3g} seconds.",
            code="gpu.hangs",
            hint="Restart the computer; a GPU may be failing.",
        ) from error
    if process.returncode:
        raise failure(f"{output}\n{errors}")
    return output


def _abandon(process: subprocess.Popen[str]) -> None:
    """One that waits inside the driver does not even die when it is killed; it must not take this process with it."""
    process.kill()
    try:
        process.wait(timeout=_DIES_WITHIN_S)
    except subprocess.TimeoutExpired:
        # Somebody has to reap it should it die after all, and until then nobody may complain that it has not.
        threading.Thread(target=process.wait, name="nvidia-smi", daemon=True).start()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def failure(output: str) -> DeviceError:
    """The words of nvidia-smi in ours."""
    for words, code, message, hint in _FAILURES:
        if words in output:
            return DeviceError(message, code=code, hint=hint, detail=output.strip())
    first = next((line.strip() for line in output.splitlines() if line.strip()), "it said nothing")
    return DeviceError(
        f"nvidia-smi failed: {first.rstrip('.')}.",
        code="gpu.driver_failed",
        hint="Restart the computer.",
        detail=output,
    )
