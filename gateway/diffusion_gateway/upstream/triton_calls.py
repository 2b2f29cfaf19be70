"""Calls of a Triton that may be given up, and their errors as the gateway's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from grpc.aio import AioRpcError
from tritonclient.utils import InferenceServerException

from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.upstream.model_server import ConnectionLostError, FixedError
from diffusion_gateway.upstream.triton_messages import error_of, event_of

_LAST = ("completed", "described")
_CLOSING_S = 5.0


class Flight:
    """A request that may be given up because the worker that has it is gone."""

    def __init__(self) -> None:
        self.call: Any = None
        self.worker_gone = False

    def give_up(self) -> None:
        self.worker_gone = True
        if self.call is not None:
            self.call.cancel()


async def events(flight: Flight, timeout_s: float) -> AsyncIterator[dict[str, Any]]:
    """A stream's events up to its end; `timeout_s` is the longest silence between two.

    The stream is read to its very end, after the last event too: one that is left open keeps Triton
    from unloading the model.
    """
    ended, failed = False, None
    with errors(flight):
        while True:
            over = ended or failed is not None
            try:
                async with asyncio.timeout(_CLOSING_S if over else timeout_s):
                    result, error = await anext(flight.call)
            except (TimeoutError, StopAsyncIteration, AioRpcError) as end:
                if failed is not None:
                    raise failed from None
                if ended:
                    return
                if isinstance(end, AioRpcError):
                    raise
                how = "is silent" if isinstance(end, TimeoutError) else "ended a stream early"
                raise ConnectionLostError(f"the model server {how}", sent=True) from None
            if error is not None:
                failed = error_of(error.message())
            elif not over:
                event = event_of(result)
                ended = event.get("type") in _LAST
                yield event


@contextmanager
def errors(flight: Flight | None = None) -> Iterator[None]:
    """Triton's and gRPC's errors as the gateway's."""
    try:
        yield
    except InferenceServerException as error:
        raise _as_upstream(error.message(), str(error.status())) from None
    except AioRpcError as error:
        raise _as_upstream(error.details() or "", str(error.code())) from None
    except asyncio.CancelledError:
        # The call was cancelled, and not whoever waits for it.
        if flight is None or not flight.worker_gone:
            raise
        raise error_of("the worker is not healthy") from None


def _as_upstream(message: str, code: str) -> UpstreamError:
    if "load / unload is not allowed" in message:
        return FixedError("Triton does not let its clients load and unload models")
    return error_of(message, code.removeprefix("StatusCode."))
