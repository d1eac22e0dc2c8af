"""Which models Standin can fetch, from where, and what is known of their files. Data, no behaviour to speak of.

Sizes and hashes stand here only where they are certain. Of everything else the hub's own listing of the pinned
commit is recorded at the first download (`manifest.py`) and held against the files from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from engine.errors import UsageError

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFile:
    """Size in bytes and SHA-256 (hex) of a file at the catalogue's commit, whatever a mirror says."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One repository of the hub, and which of its files are wanted.

    `revision` is a commit, or a branch that the first download resolves to a commit. `groups` are alternatives, best
    first: each group must be there, and only its first pattern that matches anything is fetched. `extras` are taken
    if they are there. `size_bytes` is the expected total, `size_is_exact` whether it is more than an estimate.
    `licence` is the identifier that the publisher states, empty where only the hub can tell. `needs` are models
    without which this one is of no use. `has_8_bit_copies`: its weights may be kept in 8 bits besides, made here.
    """

    name: str
    title: str
    repository: str
    revision: str
    licence: str
    size_bytes: int
    size_is_exact: bool
    groups: tuple[tuple[str, ...], ...]
    extras: tuple[str, ...] = ("LICENSE*", "LICENCE*", "NOTICE*")
    known: dict[str, KnownFile] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    has_8_bit_copies: bool = False

    @property
    def page(self) -> str:
        """Where a person reads about it, its licence above all."""
        return f"{DEFAULT_ENDPOINT}/{self.repository}"

    def select(self, paths: list[str]) -> tuple[list[str], list[str]]:
        """Which of the repository's `paths` are wanted, in order; and the patterns nothing was found for."""
        wanted: set[str] = set()
        missing = []
        for group in self.groups:
            matches = next((found for pattern in group if (found := _matching(paths, pattern))), None)
            if matches is None:
                missing.append(group[0])
            else:
                wanted.update(matches)
        for pattern in self.extras:
            wanted.update(_matching(paths, pattern))
        return [path for path in paths if path in wanted], missing


def _matching(paths: list[str], pattern: str) -> list[str]:
    """A `*` stays within one folder, unlike fnmatch's own."""
    return [path for path in paths if path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)]


FLASHTALK = ModelEntry(
    name="flashtalk-14b",
    title="SoulX-FlashTalk 14B (photographic generator)",
    repository="Soul-AILab/SoulX-FlashTalk-14B",
    # No commit of it is known here: the first download pins the one that "main" means then.
    revision="main",
    licence="",
    # Two bytes for each of the 18,882,046,784 parameters, and the Wan 2.1 files as published: an estimate until the
    # hub's listing is read.
    size_bytes=37_764_093_568 + 11_361_920_418 + 4_772_359_047 + 507_609_880 + 21_400_000,
    size_is_exact=False,
    groups=(
        ("config.json",),
        # One file or shards with their index; which, only the repository tells.
        ("diffusion_pytorch_model*.safetensors",),
        ("models_t5_umt5-xxl-enc-bf16.pth",),
        ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",),
        ("Wan2.1_VAE.pth",),
        # Either form holds the whole tokenizer.
        ("google/umt5-xxl/tokenizer.json", "google/umt5-xxl/spiece.model"),
    ),
    extras=(
        "diffusion_pytorch_model.safetensors.index.json",
        "google/umt5-xxl/*",
        "LICENSE*",
        "LICENCE*",
        "NOTICE*",
    ),
    needs=("chinese-wav2vec2-base",),
    has_8_bit_copies=True,
)

CHINESE_WAV2VEC2 = ModelEntry(
    name="chinese-wav2vec2-base",
    title="chinese-wav2vec2-base (hears the voice for FlashTalk)",
    repository="TencentGameMate/chinese-wav2vec2-base",
    revision="3991242c806928916fff4a8c0e4f76acf661b743",
    licence="mit",
    size_bytes=1951 + 160 + 380_261_837,
    size_is_exact=True,
    # The fairseq checkpoint beside them holds the same weights for another library.
    groups=(("config.json",), ("preprocessor_config.json",), ("pytorch_model.bin", "model.safetensors")),
    known={
        "config.json": KnownFile(
            size_bytes=1951, sha256="dc2cd2f989104b9510ce9e43a343a6f1fe55aa60baa1fcfca0c5908e6590b8b6"
        ),
        "preprocessor_config.json": KnownFile(
            size_bytes=160, sha256="c1707926644954affc391ab09ccfaf470ccd80af218d11350991090711441c09"
        ),
        "pytorch_model.bin": KnownFile(
            size_bytes=380_261_837, sha256="be2da40c9e7ae26bfc904a3ed79ebb9e8f060bec6dba85d6a6ae86114bc38901"
        ),
    },
)

CATALOGUE = {entry.name: entry for entry in (FLASHTALK, CHINESE_WAV2VEC2)}


def entry_named(name: str, catalogue: dict[str, ModelEntry] | None = None) -> ModelEntry:
    """The entry; raises `UsageError` naming those there are."""
    entries = CATALOGUE if catalogue is None else catalogue
    if name not in entries:
        raise UsageError(
            f'There is no model called "{name}".', hint=f"There are: {', '.join(entries)}.", code="models.unknown"
        )
    return entries[name]
