"""The sample portraits that come with Standin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.assets import asset_path
from engine.errors import PortraitError

SAMPLE_PREFIX = "sample:"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePortrait:
    """One sample: picture, stored face geometry (FaceGeometry JSON) and person mask (8-bit PNG)."""

    id: str
    title: str
    picture: Path
    geometry: Path | None
    mask: Path | None


class _Entry(msgspec.Struct, frozen=True):
    id: str
    file: str
    title: str
    geometry: str = ""
    mask: str = ""


def sample_portraits() -> list[SamplePortrait]:
    """All samples, the default first."""
    index = asset_path("portraits/index.json")
    folder = index.parent

    def beside(name: str) -> Path | None:
        return folder / name if name else None

    return [
        SamplePortrait(
            id=entry.id,
            title=entry.title,
            picture=folder / entry.file,
            geometry=beside(entry.geometry),
            mask=beside(entry.mask),
        )
        for entry in msgspec.json.decode(index.read_bytes(), type=list[_Entry])
    ]


def sample_portrait(name: str) -> SamplePortrait:
    """The sample called `name`; an empty name or "default" means the first. Raises `PortraitError`."""
    samples = sample_portraits()
    if name in ("", "default"):
        return samples[0]
    for sample in samples:
        if sample.id == name:
            return sample
    raise PortraitError(
        f'There is no sample portrait "{name}".',
        code="portrait.no_such_sample",
        hint=f"Choose one of: {', '.join(sample.id for sample in samples)}.",
    )
