"""Certificates that TorchServe was given and the tools refuse: what they lack is told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from serving.certificate import refusal, unfit
from serving.management import Management
from tls_servers import answering, self_signed, signed_by_another

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


def told(certificate: Path) -> str:
    """What a person is told whose TorchServe has it."""
    with answering(certificate) as url:
        management = Management(url, url, certificate=str(certificate))
        with pytest.raises(requests.exceptions.SSLError) as failed:
            management.models()
    refused = refusal(failed.value)
    assert refused is not None
    return str(unfit(refused, str(certificate)))


def test_a_certificate_of_an_authority_is_told(tmp_path: Path) -> None:
    words = told(signed_by_another(tmp_path))
    assert "another one signed it" in words
    assert f"{tmp_path}/leaf.pem" in words


def test_a_certificate_for_another_name_is_told(tmp_path: Path) -> None:
    assert "does not name IP:127.0.0.1" in told(self_signed(tmp_path, "draw.example.com", ""))


def test_the_command_that_is_named_makes_one_that_does(tmp_path: Path) -> None:
    words = told(self_signed(tmp_path, "draw.example.com", ""))
    command = words.splitlines()[-1]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "certificate.key").symlink_to(tmp_path / "key.pem")
    assert "BEGIN PRIVATE KEY" in (tmp_path / "key.pem").read_text()
    certificate = tmp_path / "certificate.pem"
    with answering(certificate) as url:
        assert requests.get(url, verify=str(certificate), timeout=10).status_code == 200


def test_what_is_no_certificate_is_none() -> None:
    with pytest.raises(requests.ConnectionError) as failed:
        requests.get("https://127.0.0.1:9/", timeout=5)
    assert refusal(failed.value) is None
