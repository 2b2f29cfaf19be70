"""Who may ask without a key, and from which pages: a browser says whose page it is, and only known
ones are answered; what a proxy passed on comes from anywhere."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from diffusion_core.errors import ServingError
from diffusion_gateway.api.problems import MisdirectedError, problem_response
from diffusion_gateway.errors import ForbiddenError
from diffusion_gateway.settings import GatewaySettings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

_OF_PROXIES = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
    | {b"x-real-ip"}
)
"""What proxies add and clients do not."""
_OLD = "1.0"
"""The version of HTTP that nginx speaks to what is behind it unless it is told otherwise. It adds
no header then and sends the address that it asks as `Host`; clients of today speak 1.1."""


class Origins:
    """Refuses requests from pages of other origins, and where no key is asked for, what does not
    come from this machine:

    - requests to other names: a page whose name was pointed at a loopback address (DNS rebinding)
      would count as the gateway's own;
    - requests that a proxy passed on: it listens where others reach it. Where keys are off by
      `auth: off` and `public_url` is set, the proxy is meant, and asks who is there itself.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._allowed = set(settings.allowed_origins)
        self._hosts: frozenset[str] | None = None
        self._proxied = settings.authenticates or (
            settings.auth == "off" and settings.public_url is not None
        )
        if settings.public_url is not None:
            parts = urlsplit(settings.public_url.lower())
            self._allowed.add(f"{parts.scheme}://{parts.netloc}")
        if not settings.authenticates:
            names = {urlsplit(origin).netloc for origin in self._allowed}
            self._hosts = _LOOPBACK | {_without_port(name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None
        if scope["type"] in ("http", "websocket"):
            error = self._refusal(scope)
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refuse(error, scope, receive, send)

    def _refusal(self, scope: Scope) -> ServingError | None:
        host = origin = ""
        proxy = "HTTP/1.0" if scope.get("http_version") == _OLD else ""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1").lower()
            elif name == b"origin":
                origin = value.decode("latin-1").lower()
            elif name in _OF_PROXIES:
                proxy = name.decode("ascii").title()
        if proxy and not self._proxied:
            return ForbiddenError(
                f"{proxy}: as of a proxy, which others reach, and this gateway asks nobody for a "
                "key: set auth to on, and public_url to the proxy's address; or auth to off and "
                "public_url, where the proxy itself asks who is there",
                field=proxy,
            )
        if self._hosts is not None and _without_port(host) not in self._hosts:
            return MisdirectedError(
                "Host: without API keys only requests to this machine by a loopback name are "
                "answered, or to the host of public_url",
                field="Host",
            )
        if origin and origin not in self._allowed and not _is_of(origin, host):
            return ForbiddenError(
                "Origin: pages of this origin may not ask; see allowed_origins", field="Origin"
            )
        return None


async def refuse(error: ServingError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a problem document, before a WebSocket is opened too."""
    if scope["type"] == "http":
        await problem_response(error)(scope, receive, send)
        return
    await receive()
    # A WebSocket that is closed before it is opened is answered with a response: 403 where the
    # server knows no better.
    if "websocket.http.response" in scope.get("extensions", {}):
        await problem_response(error)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})


def _is_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        # Anybody may send anything: "http://[" is no address at all.
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
