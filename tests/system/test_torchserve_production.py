"""The production profile: TLS, tokens, and the tools that renew theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import requests

from served import ROOT
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server
from tls_servers import self_signed, signed_by_another

pytestmark = [
    pytest.mark.system,
    pytest.mark.full,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
]


def test_tls_and_tokens(
    tmp_path_factory: pytest.TempPathFactory, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("production")
    certificate = self_signed(folder, "localhost")
    monkeypatch.setenv("TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("TLS_PRIVATE_KEY", str(certificate.with_suffix(".key")))
    server = Server(folder / "run")
    try:
        server.start(ROOT / "config" / "production.properties", store, port=free_base())
        Fleet(server).register("tiny.mar", "tiny")
        management = server.management()
        url = f"{server.require().inference}/predictions/tiny"
        refused = requests.post(url, json={"prompt": "a"}, verify=str(certificate), timeout=60)
        assert refused.status_code == 400
        assert "Token" in refused.text

        _expire(server, "management")
        assert management.models() == ["tiny"]
        _expire(server, "inference")
        assert management.predict("tiny", {"prompt": "a"}, "image/png").status_code == 200
        keys = json.loads(server.keys.read_text())
        assert "expired" not in {keys["management"]["key"], keys["inference"]["key"]}
    finally:
        server.stop()


def test_a_certificate_that_the_tools_cannot_trust_is_told_at_once(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = signed_by_another(tmp_path)
    monkeypatch.setenv("TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("TLS_PRIVATE_KEY", str(certificate.with_suffix(".key")))
    server = Server(tmp_path / "run")
    with pytest.raises(Trouble, match="another one signed it"):
        server.start(ROOT / "config" / "production.properties", store, port=free_base())
    assert server.find() is None


def _expire(server: Server, kind: str) -> None:
    """A token that TorchServe no longer takes, as one is after an hour."""
    keys = json.loads(server.keys.read_text())
    keys[kind]["key"] = "expired"
    server.keys.chmod(0o600)
    server.keys.write_text(json.dumps(keys))
