"""Talks to a Hugging Face hub or a mirror of it: what a repository holds, and the bytes of its files.

`huggingface_hub` says where things are, which headers and token go with a request, and brings the connection. Files
are not left to its `hf_hub_download`: that throws away what it has when a connection breaks, which with files of many
gigabytes means to begin again, and its progress cannot be stopped everywhere. Nor is its second transfer protocol
(xet) needed: every hub and mirror serves plain HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelFilesError, UsageError
from engine.model_store.catalog import DEFAULT_ENDPOINT
from engine.model_store.manifest import FileRecord, check_path, is_commit

_PIECE_BYTES = 1 << 16


class Interrupted(Exception):
    """The connection failed or the server is busy; `retry_after_s` is what the server asked for, if anything."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, starts_over: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.starts_over = starts_over


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """All files of a repository at one commit, and the licence that its model card names (empty: none)."""

    commit: str
    licence: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """The bytes of a file from `offset` on, in pieces of at most 64 KiB or so; reading raises `Interrupted`."""

    offset: int
    pieces: Iterator[bytes]


class Hub:
    """One endpoint. `endpoint` None means what the library takes (`HF_ENDPOINT`, else huggingface.co).

    `timeout_s` is how long a silent server is waited for. No token is needed; one that the user has stored is sent
    to the usual endpoint, and to a mirror only if it stands in `HF_TOKEN`. `is_offline` refuses every request.
    Raises `UsageError` for a bad address.
    """

    def __init__(self, endpoint: str | None = None, *, timeout_s: float = 15.0, is_offline: bool = False) -> None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise UsageError(f'"{endpoint}" is not the address of a hub.', hint="Write it as https://host.")
        self._endpoint = endpoint.rstrip("/") if endpoint else None
        self._timeout_s = timeout_s
        self._is_offline = is_offline

    def listing(self, repository: str, revision: str) -> Listing:
        """Sizes and hashes of all files at `revision` (commit or branch). Raises `ModelFilesError`, `Interrupted`.

        A file with a name that could lead out of a folder makes the whole repository suspect: it is refused.
        """
        self._check_online(repository)
        library = _library()
        api = library.HfApi(endpoint=self._endpoint, token=self._token())
        with _translated(repository, revision):
            info = api.model_info(repository, revision=revision, files_metadata=True, timeout=self._timeout_s)
            entries = info.siblings or []
            if any(entry.size is None for entry in entries):
                # Some mirrors leave sizes out of this answer.
                tree = api.list_repo_tree(repository, revision=info.sha or revision, recursive=True)
                entries = [entry for entry in tree if hasattr(entry, "size")]
        if not isinstance(info.sha, str) or not is_commit(info.sha):
            raise ModelFilesError(
                f"The server does not say which commit of {repository} it has.",
                code="models.bad_server",
                hint="Use another mirror, or none.",
            )
        files = tuple(_record(entry) for entry in entries)
        _check_names(files)
        return Listing(commit=info.sha, licence=_licence(info), files=files)

    @contextmanager
    def body(self, repository: str, commit: str, path: str, *, offset: int = 0) -> Iterator[Body]:
        """The file from `offset` on, or from its beginning if the server does not do parts: see `Body.offset`.

        Raises `ModelFilesError` for what trying again cannot mend, `Interrupted` for the rest.
        """
        self._check_online(repository)
        library = _library()
        url = library.hf_hub_url(repository, path, revision=commit, endpoint=self._endpoint)
        headers = library.utils.build_hf_headers(token=self._token(), library_name="standin")
        # Parts and sizes are those of the file itself.
        headers["Accept-Encoding"] = "identity"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with _translated(repository, commit, path):
            opened = _stream(library.utils.get_session(), url, headers, self._timeout_s)
            response, pieces = opened.__enter__()
        try:
            if response.status_code not in (200, 206):
                raise _refusal(response.status_code, response.headers, repository, commit, path)
            start = _start_of(response) if response.status_code == 206 else 0
            if start not in (0, offset):
                raise Interrupted("the server sent another part than it was asked for", starts_over=True)
            yield Body(offset=start, pieces=_pieces(pieces, repository, commit, path))
        finally:
            opened.__exit__(None, None, None)

    def _check_online(self, repository: str) -> None:
        if self._is_offline:
            raise ModelFilesError(
                f"{repository} is not complete on this computer, and nothing may be fetched offline.",
                code="models.offline",
                hint="Go online, or use a directory that you already have: --from-dir.",
            )

    def _token(self) -> bool | str | None:
        """As `huggingface_hub` takes it: None is whatever is stored, False none at all."""
        if self._endpoint in (None, DEFAULT_ENDPOINT):
            return None
        return os.environ.get("HF_TOKEN") or False


def _library() -> Any:
    """huggingface_hub, without telemetry; it is in the extra `gpu`, so the base install may lack it."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ImportError as error:
        raise ModelFilesError(
            "Models cannot be downloaded: the library huggingface_hub is not installed.",
            code="models.no_library",
            hint='Install it: pip install "standin[gpu]".',
        ) from error
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


@contextmanager
def _stream(session: Any, url: str, headers: dict[str, str], timeout_s: float) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """An open response and its bytes. The library's session is one of requests before its version 1, httpx since."""
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=timeout_s, follow_redirects=True) as response:
            yield response, response.iter_bytes()
    else:
        with session.get(url, headers=headers, timeout=timeout_s, stream=True) as response:
            yield response, response.iter_content(_PIECE_BYTES)


def _pieces(pieces: Iterator[bytes], repository: str, commit: str, path: str) -> Iterator[bytes]:
    while True:
        with _translated(repository, commit, path):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@contextmanager
def _translated(repository: str, revision: str, path: str = "") -> Iterator[None]:
    """The library's exceptions as ours."""
    try:
        yield
    except (ModelFilesError, Interrupted):
        raise
    except Exception as error:  # the exceptions of its several HTTP libraries have no base in common
        if type(error).__name__ == "OfflineModeIsEnabled":
            raise ModelFilesError(
                "Models cannot be downloaded: HF_HUB_OFFLINE is set.",
                code="models.offline",
                hint="Unset it, or use a directory that you already have: --from-dir.",
            ) from error
        response = getattr(error, "response", None)
        if response is not None:
            raise _refusal(response.status_code, response.headers, repository, revision, path) from error
        if isinstance(error, (ValueError, TypeError, AttributeError, LookupError)):
            raise ModelFilesError(
                f"The server's answer about {repository} cannot be understood.",
                code="models.bad_server",
                hint="See that its address is that of a hub; a network that wants a login answers like this, too.",
                detail=f"{type(error).__name__}: {error}",
            ) from error
        raise Interrupted(str(error) or type(error).__name__) from error


def _refusal(status: int, headers: Any, repository: str, revision: str, path: str) -> ModelFilesError | Interrupted:
    """What a status other than success means for a person."""
    code = headers.get("X-Error-Code", "")
    page = f"{DEFAULT_ENDPOINT}/{repository}"
    if code == "GatedRepo":
        return ModelFilesError(
            f"{repository} may only be downloaded after its licence was accepted.",
            code="models.gated",
            hint=f"Accept it on {page}, then set HF_TOKEN to a token of your account, and try again.",
        )
    if status == 403:
        return ModelFilesError(
            f"The server forbids the download of {repository}.",
            code="models.forbidden",
            hint=f"If {page} asks you to accept a licence, do, then set HF_TOKEN; else use another mirror.",
        )
    if status == 401:
        return ModelFilesError(
            f"The server does not give {repository} away: it wants a token, or has no such repository.",
            code="models.unauthorised",
            hint=f"See {page}; a token of your account goes into HF_TOKEN.",
        )
    if status == 404:
        return _not_found(code, repository, revision, path)
    if status == 429:
        return Interrupted("the server has had too many requests from here", retry_after_s=_retry_after_s(headers))
    if status == 416:
        return Interrupted("the server has less of the file than was asked for", starts_over=True)
    if status == 408 or status >= 500:
        return Interrupted(f"the server answered with {status}", retry_after_s=_retry_after_s(headers))
    return ModelFilesError(
        f"The server refused {repository} with status {status}.", code="models.refused", hint="Try another mirror."
    )


def _not_found(code: str, repository: str, revision: str, path: str) -> ModelFilesError:
    if code == "RevisionNotFound":
        return ModelFilesError(
            f'{repository} has no revision "{revision}".',
            code="models.no_revision",
            hint="Leave --revision away, or give a commit that exists.",
        )
    if path:
        return ModelFilesError(
            f"The server does not have {path} of {repository}.",
            code="models.no_file",
            hint="Try later, or with another mirror.",
        )
    return ModelFilesError(
        f"The server has no repository {repository}.",
        code="models.no_repository",
        hint="If this is a mirror, use another one.",
    )


def _retry_after_s(headers: Any) -> float | None:
    """`Retry-After` as seconds, a day at most; its other form, a date, is taken as not said."""
    try:
        return min(86_400.0, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return None


def _start_of(response: Any) -> int:
    """The first byte of a part, from `Content-Range: bytes 10-99/100`."""
    try:
        return int(response.headers.get("Content-Range", "").split()[1].split("-")[0])
    except (IndexError, ValueError):
        raise Interrupted("the server does not say which part it sent", starts_over=True) from None


def _record(entry: Any) -> FileRecord:
    path = getattr(entry, "rfilename", None) or getattr(entry, "path", None)
    size_bytes = entry.lfs.size if entry.lfs is not None and entry.lfs.size is not None else entry.size
    if not isinstance(path, str):
        raise ModelFilesError(
            "The server lists a file without a name.", code="models.bad_server", hint="Use another mirror, or none."
        )
    if type(size_bytes) is not int or size_bytes < 0:
        raise ModelFilesError(
            f"The server does not say how large {path[:120]!r} is.",
            code="models.bad_server",
            hint="Use another mirror, or none.",
        )
    sha256 = _lower(entry.lfs.sha256) if entry.lfs is not None else ""
    # The blob id of a large file is that of its pointer, which is of no use here.
    return FileRecord(path=path, size_bytes=size_bytes, sha256=sha256, git_sha1="" if sha256 else _lower(entry.blob_id))


def _lower(digest: Any) -> str:
    return digest.lower() if isinstance(digest, str) else ""


def _check_names(files: tuple[FileRecord, ...]) -> None:
    """Every name is harmless, and none is another one's on a file system that ignores case."""
    seen: set[str] = set()
    for record in files:
        check_path(record.path)
        if record.path.casefold() in seen:
            raise ModelFilesError(
                f"The server lists {record.path[:120]!r} twice.", code="models.unsafe_path", hint="Use another mirror."
            )
        seen.add(record.path.casefold())


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    licence = getattr(card, "license", None)
    if licence == "other":
        licence = getattr(card, "license_name", None) or licence
    return ", ".join(str(name) for name in licence) if isinstance(licence, list) else str(licence or "")
