"""Bytes that starts of FlashTalk read from the disk, of a checkpoint with random weights, each start a process.

    python tests/benchmarks/start_reads.py [FOLDER]

The kernel forgets the checkpoint's pages before each start and counts what it reads again (Linux, /proc/self/io), whole
pages and read-ahead included. The transformer is wide enough for them not to matter; all else is tiny.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDE = {"dim": 2560, "ffn_dim": 2560, "num_heads": 20, "num_layers": 2}
STARTS = {
    "first": {},
    "second": {},
    "another portrait": {"portrait": "sample:theo"},
    "another prompt": {"prompt": "Somebody sings."},
    "all of them again": {},
    "8 bits, first": {"precision": "int8"},
    "8 bits, second": {"precision": "int8"},
}


def main(folder: Path) -> None:
    """Write the checkpoint if it is not there, and start."""
    model, speech = folder / "SoulX-FlashTalk-14B", folder / "chinese-wav2vec2-base"
    if not speech.exists():
        sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
        import tiny_checkpoint

        tiny_checkpoint.DIT.update(WIDE)
        tiny_checkpoint.write_checkpoint(folder)
    for precision in ("bf16", "fp32"):
        print(f"{precision}: the set-up weights are {_set_up_bytes(model) / 1e6:.1f} MB")
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            for name, options in STARTS.items():
                values = {"checkpoint": str(model), "speech_encoder": str(speech), "size": "32x16", "device": "cpu"}
                wanted = {"portrait": "sample:maya", **values, "precision": precision, **options}
                environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
                command = [sys.executable, __file__, "--start", str(folder), json.dumps(wanted)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                print(f"  {name:20s} {int(done.stdout.split()[-1]) / 1e6:7.1f} MB", flush=True)


def start(folder: Path, options: dict) -> None:
    """One start; prints how many bytes it read, without those of programs."""
    from engine.generators.flashtalk.generator import FlashTalkGenerator
    from engine.portrait.load import load_portrait

    class Quiet:
        def update(self, *_arguments) -> None:
            pass

    portrait = load_portrait(options.pop("portrait"))
    FlashTalkGenerator(**options, group=None).check()  # imports what it needs
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = _read_bytes()
    FlashTalkGenerator(**options).prepare(portrait, (1, 1), Quiet())
    print(_read_bytes() - before)


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _set_up_bytes(model: Path) -> int:
    from safetensors import safe_open

    total = 0
    for path in model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            from engine.generators.flashtalk.transformer import is_set_up_only

            total += sum(file.get_tensor(name).nbytes for name in file.keys() if is_set_up_only(name))  # noqa: SIM118
    return total


if __name__ == "__main__":
    if sys.argv[1:2] == ["--start"]:
        start(Path(sys.argv[2]), json.loads(sys.argv[3]))
    elif sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
