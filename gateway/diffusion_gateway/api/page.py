"""The web page at /, its scripts and styles; nothing of it comes from elsewhere."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from diffusion_core.errors import ServingError
from diffusion_gateway.api.auth import gateway_of
from diffusion_gateway.errors import UnknownFileError

if TYPE_CHECKING:
    from diffusion_gateway.gateway import Gateway

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "page"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page; `tag` changes with its content."""

    data: bytes
    content_type: str
    tag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Files of the page by name, read once."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _TYPES:
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            found[path.name] = PageFile(data, _TYPES[path.suffix], tag)
    return found


@router.get("/")
async def get_page(request: Request) -> Response:
    """The page."""
    return await _answer(request, page_files()["index.html"])


@router.get("/page/{name}")
async def get_page_file(request: Request, name: str) -> Response:
    """A script, style or picture of the page."""
    found = page_files().get(name)
    if found is None or name == "index.html":
        raise UnknownFileError
    return await _answer(request, found)


async def _answer(request: Request, file: PageFile) -> Response:
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": await content_policy(gateway_of(request)),
        "Cross-Origin-Opener-Policy": "same-origin",
        "ETag": file.tag,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if file.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.content_type, headers=headers)


async def content_policy(gateway: Gateway) -> str:
    """What the page may load: scripts, styles and answers from here, pictures from here and from
    where results are linked to."""
    pictures = " ".join(["'self'", "data:", "blob:", *await _origins_of_results(gateway)])
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src {pictures}",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


async def _origins_of_results(gateway: Gateway) -> list[str]:
    links = [gateway.settings.public_url]
    # Where the storage signs nothing now, the page itself is still of use.
    with suppress(ServingError):
        links.append(await gateway.results.url("generations/0/0.png"))
    parts = [urlsplit(link) for link in links if link is not None]
    return [f"{part.scheme}://{part.netloc}" for part in parts]
