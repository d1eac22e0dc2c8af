"""A download in words."""

from __future__ import annotations

from html import escape

from app.controllers.model_download import ModelDownload, Stage
from engine.model_store.meter import size_text
from engine.protocol import messages as m

_KEPT = "What has arrived is kept; another try goes on with it."
_HINTS = {
    "models.connection": f"See that this computer is online. {_KEPT}",
    "models.busy": _KEPT,
    "models.disk_full": f"Free some space. {_KEPT}",
    "models.offline": "Standin was told not to use the network.",
    "models.bad_server": "A network that wants a login answers like this, too.",
}
"""Where the engine's own hints are about commands that one types."""


def part_text(part: m.ModelPart) -> str:
    """One model of a plan, as rich text with a link to where its licence can be read."""
    licence = escape(part.licence) or "not named by its publisher"
    size = size_text(part.size_bytes)
    if part.missing_bytes < part.size_bytes:
        size += f", {size_text(part.size_bytes - part.missing_bytes)} of it here already"
    page = escape(part.page, quote=True)
    return f'<b>{escape(part.title)}</b><br>{size}<br>Licence: {licence}, see <a href="{page}">{page}</a>'


def room_words(plan: m.ModelPlanned) -> str:
    """How much goes where."""
    return f"{size_text(plan.missing_bytes)} to fetch into {plan.folder}, where {size_text(plan.free_bytes)} are free."


def problem_words(problem: m.Reason) -> str:
    """What to do about it."""
    return _HINTS.get(problem.code, problem.hint)


def progress_words(download: ModelDownload) -> tuple[str, str]:
    """(what is going on, how far it is), both for reading while it changes."""
    now = download.progress
    if now is not None and now.stage == "waiting":
        return "Waiting for another Standin that downloads it...", ""
    if now is None or now.total_bytes <= 0:
        return "Asking the server what there is...", ""
    share = 100 * now.done_bytes / now.total_bytes
    figures = f"{size_text(now.done_bytes)} of {size_text(now.total_bytes)}"
    speed = download.speed
    if speed > 0 and download.stage is Stage.DOWNLOADING:
        figures += f", {size_text(speed)} a second, {_duration((now.total_bytes - now.done_bytes) / speed)} left"
    return f"Downloading: {share:.0f} %", f"{figures}."


def _duration(duration_s: float) -> str:
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 5400 else f"{duration_s / 3600:.1f} h"
