"""A few files that never change under their name, kept in memory: nothing else can be asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from runtime.errors import NotFound

FOLDER = Path(__file__).parent.parent / "static"
CACHE_CONTROL = "public, max-age=2592000, immutable"
TYPES = {
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
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
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
            files[path.name] = File(body, TYPES[path.suffix], tag)
    return files


def routes() -> APIRouter:
    router = APIRouter(prefix="/static")
    files = load()

    @router.get("/{name}", response_class=Response)
    async def file(
        name: str, if_none_match: Annotated[str | None, Header(max_length=2000)] = None
    ) -> Response:
        found = files.get(name)
        if found is None:
            raise NotFound(f"There is no static file {name!r}.")
        headers = {
            "ETag": found.tag,
            "Cache-Control": CACHE_CONTROL,
            "X-Content-Type-Options": "nosniff",
        }
        if matches(if_none_match, found.tag):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type=found.media_type)

    return router


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has what `tag` names (RFC 9110 13.1.2: weak comparison)."""
    if not if_none_match:
        return False
    tags = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in tags or tags == ["*"]
