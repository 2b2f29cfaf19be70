"""A TorchServe whose certificate is not to be trusted: what the gateway says of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.torchserve import TorchServe
from tls_servers import answering, self_signed

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


async def test_a_refused_certificate_is_told(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "elsewhere.example", "")
    with answering(certificate) as url:
        torchserve = TorchServe(
            EndpointSettings(inference=url, management=url, certificate=certificate)
        )
        try:
            with pytest.raises(UpstreamError, match=r"certificate is refused \(.*127\.0\.0\.1"):
                await torchserve.models()
        finally:
            await torchserve.close()
