"""The NVIDIA GPUs that this process may use: what they are, what is free, who uses them, how they are connected."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.errors import DeviceError
from engine.gpus.nvidia_smi import Run, failure, run_nvidia_smi
from engine.gpus.types import Gpu, GpuProcess, GpusFound, MigPart
from engine.gpus.visible import visible
from engine.protocol.codec import reason_of
from engine.protocol.messages import Reason

logger = logging.getLogger(__name__)

_FIELDS = "index,uuid,name,memory.total,memory.free,compute_cap,driver_version,mig.mode.current"
_FORMAT = "--format=csv,noheader,nounits"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_BROKEN = re.compile(r"Unknown Error|GPU is lost")
_MIG_LINE = re.compile(r"^\s+MIG\s+(\S+)\s+Device\s+\d+:\s+\(UUID:\s+(\S+?)\)")
_GPU_LINE = re.compile(r"^GPU\s+\d+:.*\(UUID:\s+(\S+?)\)")


def find_gpus(run: Run = run_nvidia_smi, environment: Mapping[str, str] | None = None) -> GpusFound:
    """All GPUs that this process may use. A second as a rule; at most some 20 seconds to each of four questions."""
    environment = os.environ if environment is None else environment
    try:
        gpus, odd = _parse_gpus(run([f"--query-gpu={_FIELDS}", _FORMAT]))
    except DeviceError as error:
        return GpusFound(problem=reason_of(error))
    if any(gpu.is_split for gpu in gpus):
        parts = _parse_parts(_try(run, ["-L"]))
        gpus = [replace(gpu, parts=parts.get(gpu.uuid, ())) for gpu in gpus]
    by_number = {gpu.system_index: gpu for gpu in gpus}
    usable, problem, notes = visible(gpus, environment)
    users = _parse_processes(_try(run, ["--query-compute-apps=gpu_uuid,pid,process_name,used_memory", _FORMAT]))
    links = parse_links(_try(run, ["topo", "-m"])) if len(usable) > 1 else {}
    numbers = {gpu.system_index: index for index, gpu in enumerate(usable)}
    found = tuple(
        replace(
            gpu,
            index=index,
            processes=users.get(by_number[gpu.system_index].uuid, ()),
            links={
                numbers[other]: kind
                for other, kind in links.get(gpu.system_index, {}).items()
                if other in numbers and other != gpu.system_index
            },
        )
        for index, gpu in enumerate(usable)
    )
    return GpusFound(gpus=found, problem=problem, notes=(*odd, *notes))


def list_gpus(run: Run = run_nvidia_smi, environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """The GPUs of `find_gpus` alone; none where none can be used, whatever the reason."""
    found = find_gpus(run, environment)
    if found.problem is not None:
        logger.info("GPUs: %s %s", found.problem.message, found.problem.detail)
    return list(found.gpus)


def _try(run: Run, arguments: Sequence[str]) -> str:
    """Nothing where it fails: not every driver and system answers every question."""
    try:
        return run(arguments)
    except DeviceError as error:
        logger.info("nvidia-smi %s: %s %s", arguments[0], error.message, error.detail)
        return ""


def _parse_gpus(output: str) -> tuple[list[Gpu], list[Reason]]:
    gpus, odd = [], []
    for line in filter(str.strip, output.splitlines()):
        values = [value.strip() for value in line.split(",")]
        is_whole = len(values) == 8 and values[0].isdigit() and values[1].startswith("GPU-")
        if is_whole and not any(_BROKEN.search(value) for value in values):
            gpus.append(_gpu(values))
        else:
            logger.warning("nvidia-smi says: %s", line)
            told = failure(line)
            message = told.message if told.code != "gpu.driver_failed" else f"nvidia-smi says: {line.strip()}"
            odd.append(Reason(code=told.code, message=message, hint=told.hint, detail=line))
    if not gpus:
        raise failure(output or "No devices were found")
    return gpus, odd


def _gpu(values: list[str]) -> Gpu:
    number, uuid, name, total, free, capability, driver, mig = values
    version = re.fullmatch(r"(\d+)\.(\d+)", capability)
    return Gpu(
        index=int(number),
        system_index=int(number),
        uuid=uuid,
        name=name,
        total_bytes=_mebibytes(total),
        free_bytes=_mebibytes(free),
        compute_capability=(int(version[1]), int(version[2])) if version else None,
        driver=driver,
        is_split=mig == "Enabled",
    )


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None


def _parse_parts(output: str) -> dict[str, tuple[MigPart, ...]]:
    """MIG's parts of each GPU's UUID, from `nvidia-smi -L`."""
    parts: dict[str, tuple[MigPart, ...]] = {}
    uuid = ""
    for line in output.splitlines():
        if gpu := _GPU_LINE.match(line):
            uuid = gpu[1]
        elif part := _MIG_LINE.match(line):
            parts[uuid] = (*parts.get(uuid, ()), MigPart(uuid=part[2], profile=part[1]))
    return parts


def _parse_processes(output: str) -> dict[str, tuple[GpuProcess, ...]]:
    """The programs on each GPU's UUID. Their names are paths and may hold commas."""
    users: dict[str, tuple[GpuProcess, ...]] = {}
    for line in output.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) < 4 or not values[1].isdigit():
            continue
        name = re.split(r"[/\\]", ",".join(values[2:-1]))[-1]
        process = GpuProcess(pid=int(values[1]), name=name, used_bytes=_mebibytes(values[-1]))
        users[values[0]] = (*users.get(values[0], ()), process)
    return users


def parse_links(output: str) -> dict[int, dict[int, str]]:
    """From `nvidia-smi topo -m`: the kind of way ("NV18", "PHB", ...) between the GPUs with these system indices."""
    columns: list[int] = []
    links: dict[int, dict[int, str]] = {}
    for line in _ANSI.sub("", output).splitlines():
        words = line.split()
        if not columns:
            columns = [int(word[3:]) for word in words if re.fullmatch(r"GPU\d+", word)]
        elif words and re.fullmatch(r"GPU\d+", words[0]) and len(words) > len(columns):
            row = int(words[0][3:])
            kinds = zip(columns, words[1:], strict=False)
            links[row] = {column: kind for column, kind in kinds if column != row}
    return links
