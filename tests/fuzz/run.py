"""Fuzzes one target: `python tests/fuzz/run.py TARGET --seconds 600`; `--replay` runs only what has been found before.

Inputs run in a child process. A finding is an exception that is no `StandinError`, a crash, more than 2 s of processor
time or 1 GB of memory for one input. Findings are written to `--out`; once mended they belong in tests/fuzz/seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import hashlib
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

CPU_S = 2.0
MEMORY_BYTES = 1 << 30
_SILENT_CPU_S, _SILENT_S = 15.0, 300.0
"""Processor time and wall time of one input after which it hangs; a busy machine stretches the latter alone."""


def main() -> int:
    """0 without findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="control, or one of tests/fuzz/targets.py")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "standin-fuzz")
    parser.add_argument("--replay", action="store_true", help="only the valid inputs and the kept seeds")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.target == "control":
        from control import fuzz_control

        return fuzz_control(options.seconds, options.seed, is_replay=options.replay)
    if options.child:
        return _child(options)
    return _watch(options)


def _watch(options: argparse.Namespace) -> int:
    """Start children one after the other until the time is over; tell what each died of."""
    options.out.mkdir(parents=True, exist_ok=True)
    end_s = time.monotonic() + options.seconds
    findings, runs, seed = 0, 0, options.seed
    while True:
        left_s = end_s - time.monotonic()
        current = options.out / f"{options.target}.current"
        current.write_bytes(b"")
        counted = current.with_suffix(".count")
        counted.write_text("0")
        command = [sys.executable, __file__, options.target, "--child", "--seed", str(seed), "--out", str(options.out)]
        command += ["--seconds", str(left_s), *(["--replay"] if options.replay else [])]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        is_hung = _wait(child, current)
        assert child.stdout is not None
        said = child.stdout.read().split()
        runs += int(said[0] if said else counted.read_text() or 0)
        findings += int(said[1]) if said else 1
        if not said:
            name = _keep(options, current.read_bytes())
            print(f"FINDING {name}: {'hangs' if is_hung else f'ends the process with {child.returncode}'}", flush=True)
        seed += 1_000_003
        if options.replay or end_s - time.monotonic() < 1:
            break
    print(f"{options.target}: {runs} inputs, {findings} findings, seed {options.seed}")
    return 1 if findings else 0


def _wait(child: subprocess.Popen[str], current: Path) -> bool:
    """Whether it had to be killed."""
    process, began, spent_s = psutil.Process(child.pid), 0.0, 0.0
    while child.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):
            now_s = sum(process.cpu_times()[:2])
            if current.stat().st_mtime != began:
                began, spent_s = current.stat().st_mtime, now_s
            if now_s - spent_s > _SILENT_CPU_S or time.time() - began > _SILENT_S:
                child.kill()
                child.wait()
                return True
    return False


def _inputs(options: argparse.Namespace) -> Iterator[bytes]:
    from targets import TARGETS

    target = TARGETS[options.target]
    corpus = target.corpus()
    corpus += [path.read_bytes() for path in sorted((HERE / "seeds" / options.target).glob("*"))]
    rng = random.Random(options.seed)
    yield from corpus
    while not options.replay:
        data = rng.choice(corpus)
        for _ in range(rng.choice((1, 1, 2))):
            data = target.damage(rng, data)
        yield data


def _child(options: argparse.Namespace) -> int:
    from targets import TARGETS

    from engine.errors import StandinError

    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    run = TARGETS[options.target].run
    current = options.out / f"{options.target}.current"
    end_s = time.monotonic() + options.seconds
    count, seen = 0, set()
    for data in _inputs(options):
        current.write_bytes(data)
        folder = Path(tempfile.mkdtemp(prefix="standin-fuzz-"))
        before_bytes, started_s, why = _peak_bytes(), time.process_time(), ""
        try:
            run(data, folder)
        except StandinError:
            pass
        except Exception as error:  # noqa: BLE001 - these are what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})"
            mark = (type(error).__name__, place.filename, place.lineno)
        spent_s, grown_bytes = time.process_time() - started_s, _peak_bytes() - before_bytes
        shutil.rmtree(folder, ignore_errors=True)
        if not why and spent_s > CPU_S:
            why, mark = f"took {spent_s:.1f} s", ("slow",)
        if not why and grown_bytes > MEMORY_BYTES and count > 2:
            why, mark = f"took {grown_bytes >> 20} MB", ("large",)
        count += 1
        if why and mark not in seen:
            seen.add(mark)
            print(f"FINDING {_keep(options, data)}: {why}", file=sys.stderr, flush=True)
        if count % 100 == 0:
            current.with_suffix(".count").write_text(str(count))
            gc.collect()
        if time.monotonic() > end_s and not options.replay:
            break
    print(count, len(seen))
    return 1 if seen else 0


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _keep(options: argparse.Namespace, data: bytes) -> str:
    path = options.out / f"{options.target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
