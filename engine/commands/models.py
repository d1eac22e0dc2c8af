"""`standin models`: which models there are, fetch, verify, forget them, and where they lie."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.commands.console import ProgressLine
from engine.errors import Cancelled, ModelFilesError, UsageError
from engine.model_store.catalog import CATALOGUE
from engine.model_store.meter import size_text
from engine.model_store.plan import DownloadPlan
from engine.model_store.quantized import PRECISIONS, QuantizedCopy
from engine.model_store.state import ModelState
from engine.model_store.store import ModelStore, Verification

_SPEED_OVER_S = 10.0
_SHOWN_EVERY_S = 0.1
_OLD_BYTES = 1_000_000


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its own commands."""
    parser = commands.add_parser(
        "models",
        help="list, download, verify and remove the models of the photographic generator",
        description="The puppet needs no model. Those of the photographic generator are fetched once, verified, and "
        "used from this computer from then on.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _action(actions, "list", "what there is, what is here, how large it is")
    download = _action(actions, "download", "fetch a model and what it needs; goes on where it stopped", "NAME")
    download.add_argument("--yes", action="store_true", help="agree to the licences that are shown")
    download.add_argument("--mirror", metavar="URL", help="fetch from here instead of huggingface.co or HF_ENDPOINT")
    download.add_argument("--revision", metavar="R", help="a commit or branch instead of the pinned commit")
    download.add_argument("--from-dir", type=Path, metavar="DIR", help="use this directory that you have; not copied")
    download.add_argument("--offline", action="store_true", help="never use the network: fails if anything is missing")
    _action(actions, "verify", "read every file of a model and compare it with what was published", "NAME")
    remove = _action(actions, "remove", "delete a model; of a directory of your own, only forget it", "NAME")
    which = remove.add_mutually_exclusive_group()
    which.add_argument("--old", action="store_true", help="only earlier revisions and unfinished downloads")
    which.add_argument(
        "--quantized", action="store_true", help="only its weights in 8 bits, which are made again when they are needed"
    )
    which.add_argument("--precision", metavar="P", help=f"only those in this precision: {' or '.join(PRECISIONS)}")
    _action(actions, "path", "the directory of a model, or of all without a name", "NAME", is_optional=True)


def _action(
    actions: argparse._SubParsersAction, name: str, text: str, operand: str = "", *, is_optional: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    if operand:
        parser.add_argument(
            "name", metavar=operand, nargs="?" if is_optional else None, help=f"one of {', '.join(CATALOGUE)}"
        )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """One action; failures are raised as `ModelFilesError` or `UsageError`."""
    actions = {"list": _list, "download": _download, "verify": _verify, "remove": _remove, "path": _path}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    states = ModelStore().states()
    if arguments.json:
        print(json.dumps([_plain(state) for state in states], indent=2))
        return 0
    for state in states:
        print(f"{state.name:22s} {state.status:9s} {_size(state):>15s}  {state.title}")
        for line in _details(state):
            print(f"{'':22s} {line}")
    return 0


def _details(state: ModelState) -> list[str]:
    lines = [f"licence: {state.licence + ', ' if state.licence else ''}see {state.page}"]
    if state.path is not None:
        lines.append(f"{'your own directory' if state.is_own else 'in'} {state.path}")
    elif state.status == "partial":
        lines.append(f"{size_text(state.disk_bytes)} have arrived; the same download goes on with them")
    lines += state.problems[:5]
    if state.path is not None and not state.is_own and state.disk_bytes - state.size_bytes > _OLD_BYTES:
        lines.append(_old_hint(state))
    lines += [_copy_line(copy) for copy in state.copies]
    return lines


def _copy_line(copy: QuantizedCopy) -> str:
    whole = "" if copy.is_whole else ", unfinished"
    return f"its weights in 8 bits, {copy.precision}{whole}: {size_text(copy.size_bytes)}"


def _download(arguments: argparse.Namespace) -> int:
    if arguments.from_dir is not None:
        return _register(arguments)
    store = ModelStore(endpoint=arguments.mirror, is_offline=arguments.offline)
    line = _Line(is_quiet=arguments.json)
    try:
        plan = store.plan(arguments.name, line, revision=arguments.revision)
        if plan.models:
            store.check_room(plan.needed_bytes)
            _agree(plan, is_agreed=arguments.yes, is_quiet=arguments.json)
            store.fetch(plan, line)
    finally:
        line.end()
    state = store.state(arguments.name)
    if arguments.json:
        print(json.dumps(_plain(state), indent=2))
        return 0
    print(f"{state.name} is {'complete' if plan.models else 'already here'}: {state.path}")
    if not state.is_own and state.disk_bytes - state.size_bytes > _OLD_BYTES:
        print(_old_hint(state))
    return 0


def _agree(plan: DownloadPlan, *, is_agreed: bool, is_quiet: bool) -> None:
    """Show what will be fetched under which licence, and ask. Raises `Cancelled`, or `UsageError` if nobody can be
    asked."""
    pages = []
    for model in plan.models:
        pages.append(model.entry.page)
        licence = model.licence or "not named by its publisher"
        if not is_quiet:
            print(f"{model.entry.name}: {size_text(model.manifest.size_bytes)}, licence: {licence}", file=sys.stderr)
            print(f"  {model.entry.page} at {model.manifest.commit[:12]}", file=sys.stderr)
    if not is_quiet:
        room = f"{size_text(plan.needed_bytes)} to fetch, {size_text(plan.free_bytes)} free in {plan.folder}"
        print(room, file=sys.stderr)
    if is_agreed:
        return
    if is_quiet or not sys.stdin.isatty():
        raise UsageError(
            "A download needs your agreement to the licence of what is fetched.",
            hint=f"Read it on {' and '.join(pages)}, then add --yes.",
            code="models.licence",
        )
    print("Agree to the licences and download? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("Nothing was downloaded.")


def _register(arguments: argparse.Namespace) -> int:
    if arguments.revision or arguments.mirror:
        raise UsageError("--from-dir fetches nothing.", hint="Leave --revision and --mirror away.")
    store = ModelStore()
    state = store.register(arguments.name, arguments.from_dir)
    if arguments.json:
        print(json.dumps(_plain(state), indent=2))
        return 0
    print(f"{state.name} is used from {state.path}; nothing was copied.")
    for need in state.needs:
        other = store.state(need)
        if other.path is not None:
            print(f"It needs {need}, which is in {other.path}.")
        else:
            print(f'It needs {need}, too: "standin models download {need}".')
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    line = _Line(is_quiet=arguments.json)
    store = ModelStore()
    try:
        found = store.verify(arguments.name, line)
    finally:
        line.end()
    is_own = store.state(arguments.name).is_own
    if found.damaged:
        raise _damage_error(found, is_own=is_own)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2))
        return 0
    what = f"{found.name}: {found.file_count} files, {size_text(found.size_bytes)}"
    if found.is_first:
        print(f"{what}, all readable.")
        print("Nothing was known to compare them with; their hashes were recorded for the next time.")
    else:
        print(f"{what}, {'unchanged' if is_own else 'all as published'}.")
    return 0


def _damage_error(found: Verification, *, is_own: bool) -> ModelFilesError:
    shown = "; ".join(map(str, found.damaged[:5])) + ("; ..." if len(found.damaged) > 5 else "")
    hint = f'"standin models download {found.name}" fetches only what is damaged.'
    return ModelFilesError(
        f"{found.name} is damaged: {shown}.",
        code="models.damaged",
        hint=f"Copy these files again and verify them, or accept them as they are: "
        f'"standin models download {found.name} --from-dir DIR".'
        if is_own
        else hint,
    )


def _remove(arguments: argparse.Namespace) -> int:
    store = ModelStore()
    before = store.state(arguments.name)
    has_only_copies = arguments.quantized or arguments.precision is not None
    if has_only_copies:
        freed_bytes = store.remove_copies(arguments.name, arguments.precision)
    else:
        freed_bytes = store.remove(arguments.name, only_old=arguments.old)
    if arguments.json:
        print(json.dumps({"name": arguments.name, "freed_bytes": freed_bytes}))
        return 0
    if before.is_own and not (arguments.old or has_only_copies):
        print(f"{arguments.name} is no longer used from its directory, which was left as it is.")
        if before.copies:
            print(f"{size_text(before.copies_bytes)} of its weights in 8 bits freed.")
    elif freed_bytes:
        print(f"{size_text(freed_bytes)} freed.")
    else:
        print(f"There was nothing to remove of {arguments.name}.")
    return 0


def _path(arguments: argparse.Namespace) -> int:
    store = ModelStore()
    path = store.path(arguments.name) if arguments.name else store.folder
    print(json.dumps({"path": str(path)}) if arguments.json else path)
    return 0


class _Line:
    """A `Progress` for bytes: share, speed over the last seconds, time left."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._line = ProgressLine(is_quiet=is_quiet)
        self._stage = ""
        self._recent: deque[tuple[float, float]] = deque()
        self._shown_s = 0.0

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `engine.generators.base.Progress`."""
        now_s = time.monotonic()
        if stage != self._stage:
            self._stage = stage
            self._recent.clear()
        elif now_s - self._shown_s < _SHOWN_EVERY_S and done < total:
            return
        self._shown_s = now_s
        if total <= 0:
            self._line.show_often("Waiting for another Standin ..." if stage == "waiting" else f"{stage} ...")
            return
        self._recent.append((now_s, done))
        while now_s - self._recent[0][0] > _SPEED_OVER_S:
            self._recent.popleft()
        self._line.show_often(self._text(stage, done, total, now_s))

    def _text(self, stage: str, done: float, total: float, now_s: float) -> str:
        text = f"{stage} {100 * done / total:3.0f} %  {size_text(done)} of {size_text(total)}"
        since_s, since_done = self._recent[0]
        if now_s - since_s > 1.0 and done > since_done:
            speed = (done - since_done) / (now_s - since_s)
            text += f", {size_text(speed)} a second, {_duration((total - done) / speed)} left"
        return text

    def end(self) -> None:
        """Leave the line."""
        self._line.end()


def _duration(duration_s: float) -> str:
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 5400 else f"{duration_s / 3600:.1f} h"


def _old_hint(state: ModelState) -> str:
    old = size_text(state.disk_bytes - state.size_bytes)
    return f'{old} are of earlier or unfinished downloads: "standin models remove {state.name} --old" frees them.'


def _size(state: ModelState) -> str:
    return ("" if state.size_is_exact else "about ") + size_text(state.size_bytes)


def _plain(state: ModelState) -> dict[str, Any]:
    copies = [{**asdict(copy), "path": str(copy.path)} for copy in state.copies]
    return {**asdict(state), "path": None if state.path is None else str(state.path), "copies": copies}
