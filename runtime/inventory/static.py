"""A few files that never change under their name, kept in memory: nothing else can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from runtime.errors import NotFound
from runtime.settings import Settings
from runtime.wire import IfNoneMatch, tag_of, tagged

FOLDER = Path(__file__).parent.parent / "static"
CACHE_CONTROL = "public, max-age=2592000, immutable"
# The API's description keeps its name when it changes.
API = "openapi.json"
API_CACHE_CONTROL = "public, max-age=60, stale-if-error=60"
TYPES = {
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}

CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind.partition(";")[0]: {} for kind in TYPES.values()}}
}


@dataclass(frozen=True)
class File:
    body: bytes
    media_type: str
    tag: str


def load(folder: Path = FOLDER) -> dict[str, File]:
    """The files by name. Those of an unknown type are left out."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            files[path.name] = _file(path.read_bytes(), path.suffix)
    return files


def _file(body: bytes, suffix: str) -> File:
    return File(body, TYPES[suffix], tag_of(body))


def routes(entry_url: str) -> APIRouter:
    """The files, and the API's description, in which the platform's own address is put."""
    router = APIRouter()
    files = load()
    files[API] = _file(
        files[API].body.replace(Settings.entry_url.encode(), entry_url.encode()), ".json"
    )

    @router.get(f"/{API}", include_in_schema=False)
    async def api(
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        return _answer(files[API], API_CACHE_CONTROL, if_none_match)

    @router.get("/static/{name}", response_class=Response, responses=CONTENT)
    async def file(name: str, if_none_match: IfNoneMatch = None) -> Response:
        found = files.get(name)
        if found is None:
            raise NotFound(f"There is no static file {name!r}.")
        return _answer(found, API_CACHE_CONTROL if name == API else CACHE_CONTROL, if_none_match)

    return router


def _answer(file: File, cache_control: str, if_none_match: str | None) -> Response:
    headers = {"Cache-Control": cache_control, "X-Content-Type-Options": "nosniff"}
    return tagged(file.body, file.tag, if_none_match, headers, file.media_type)
