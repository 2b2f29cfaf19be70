"""Bodies are bounded while they arrive: what is too large is never read whole."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_gateway.api.problems import problem_response
from diffusion_gateway.errors import BodyTooLargeError


class BodyLimit:
    """Refuses a body above `limit` bytes: at once by its Content-Length, a chunked one as it passes
    the bound."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._limit:
                await problem_response(self._error())(scope, receive, send)
                return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._limit:
                    raise self._error()
            return message

        await self._app(scope, bounded, send)

    def _error(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"the body must have at most {self._limit} bytes", bound={"max_bytes": self._limit}
        )
