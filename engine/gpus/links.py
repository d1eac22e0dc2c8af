"""How GPUs are connected, from `nvidia-smi topo -m`'s short names to order and words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from engine.gpus.types import Gpu

_WORDS = {
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "PCIe through the processor",
    "NODE": "PCIe through several bridges of a processor",
    "SYS": "PCIe across processors",
}
_RANKS = {"SYS": 1, "NODE": 2, "PHB": 3, "PXB": 4, "PIX": 5}
_NVLINK_RANK = 100


def link_rank(kind: str) -> int:
    """The more the faster; 0 where it is not known."""
    if is_nvlink(kind):
        return _NVLINK_RANK + int(kind[2:])
    return _RANKS.get(kind, 0)


def is_nvlink(kind: str) -> bool:
    """Whether it is one of "NV1", "NV2", ..."""
    return kind.startswith("NV") and kind[2:].isdigit()


def link_words(kind: str) -> str:
    """For people: "NVLink (NV18)"."""
    words = "NVLink" if is_nvlink(kind) else _WORDS.get(kind, "a way that is not known")
    return f"{words} ({kind})" if kind else words


def link_between(one: Gpu, other: Gpu) -> str:
    """The kind of way between two, "" where it is not known."""
    return one.links.get(other.index, "") or other.links.get(one.index, "")


def slowest_link(gpus: Iterable[Gpu]) -> str | None:
    """Of all pairs; None for a single GPU."""
    kinds = [link_between(one, other) for one, other in combinations(gpus, 2)]
    return min(kinds, key=link_rank, default=None)


def link_lines(gpus: Sequence[Gpu]) -> list[str]:
    """All pairs, by the kind of way, fastest first; nothing where none is known."""
    pairs: dict[str, list[str]] = {}
    for one, other in combinations(gpus, 2):
        kind = link_between(one, other)
        if kind:
            pairs.setdefault(kind, []).append(f"{one.index}-{other.index}")
    kinds = sorted(pairs, key=link_rank, reverse=True)
    if len(kinds) == 1 and len(gpus) > 2:
        return [f"between all: {link_words(kinds[0])}"]
    return [f"between {', '.join(pairs[kind])}: {link_words(kind)}" for kind in kinds]
