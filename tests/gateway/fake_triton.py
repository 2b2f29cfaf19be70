"""A fake of Triton, whose models hang or do not load as they are told.

It speaks gRPC on a socket and knows the calls that the gateway makes of models that draw nothing:
the repository's index, configurations, loading and unloading, and descriptions. What a real Triton
answers is in tests/triton_models.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from diffusion_gateway.settings import EndpointSettings
from fake_model import FakeModel, description


@dataclass
class TritonModel:
    """A model of one form. `load_s` and `fails` are of its next loads; `loads` counts them."""

    name: str
    hangs: bool = False
    load_s: float = 0.0
    fails: bool = False
    loads: int = 0
    state: str = "READY"
    reason: str = ""


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers for its models."""

    def __init__(self, *models: TritonModel) -> None:
        self.models = {model.name: model for model in models}
        self.port = 0

    @property
    def settings(self) -> EndpointSettings:
        return EndpointSettings(kind="triton", inference=f"grpc://127.0.0.1:{self.port}")

    async def RepositoryIndex(self, *_: Any) -> Any:  # noqa: N802
        index = service_pb2.RepositoryIndexResponse()
        for model in self.models.values():
            index.models.add(name=model.name, version="1", state=model.state, reason=model.reason)
        return index

    async def ModelConfig(self, request: Any, _: Any) -> Any:  # noqa: N802
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=2)
        config.input.add(name="describe", data_type="TYPE_BOOL")
        config.instance_group.add(count=1)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, _: Any) -> Any:  # noqa: N802
        if self.models[request.model_name].hangs:
            await asyncio.sleep(60)
        document = json.dumps(description(FakeModel(request.model_name))).encode()
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="metadata", datatype="BYTES", shape=[1, 1])
        answer.raw_output_contents.append(len(document).to_bytes(4, "little") + document)
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        model = self.models[request.model_name]
        model.loads += 1
        await asyncio.sleep(model.load_s)
        if model.fails:
            model.state, model.reason = "UNAVAILABLE", "Internal: no weights"
            await context.abort(grpc.StatusCode.INTERNAL, "failed to load: no weights")
        model.state, model.reason = "READY", ""
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, _: Any) -> Any:  # noqa: N802
        model = self.models[request.model_name]
        model.state, model.reason = "UNAVAILABLE", "unloaded"
        return service_pb2.RepositoryModelUnloadResponse()


@asynccontextmanager
async def triton(*models: TritonModel) -> AsyncIterator[FakeTriton]:
    fake = FakeTriton(*models)
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    fake.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)
