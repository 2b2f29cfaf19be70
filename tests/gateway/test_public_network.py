"""Addresses that clients name: which are public, and that only those are connected to."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from diffusion_gateway.notify.courier import Courier, Message
from diffusion_gateway.notify.public_network import PublicNetwork, is_public
from gateway_samples import settings
from webhook_receiver import receiving

PUBLIC = "93.184.216.34"

NOT_PUBLIC = """
127.0.0.1 127.255.0.9 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1
192.0.0.192 168.63.129.16 198.18.0.1 203.0.113.7 224.0.0.1 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:7f00:1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2001:0:1::1 2001:db8::1 3fff::1 fe80::1
fe80::1%eth0 fec0::1 fc00::1 fd00:ec2::254 ff02::1 localhost 127.1
"""

THIS_MACHINE = """
127.0.0.1 2130706433 0177.0.0.1 0x7f.0.0.1 0x7f000001 127.1 0 0.0.0.0 localhost
[::1] [::] [::ffff:127.0.0.1] [0:0:0:0:0:ffff:7f00:1] 127.0.0.1.
"""


@pytest.mark.parametrize(
    "address", ["8.8.8.8", PUBLIC, "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    NOT_PUBLIC.split(),
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(address)


class Network(httpcore2.AsyncNetworkBackend):
    """A network for tests on which every address is one server of this machine."""

    def __init__(self, port: int) -> None:
        self.connected: list[str] = []
        self._port = port
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, *options: Any, **more: Any
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        return await self._real.connect_tcp("127.0.0.1", self._port)


def courier(
    network: Network, *answers: Sequence[str], context: ssl.SSLContext | None = None
) -> tuple[Courier, list[str]]:
    """A courier whose names resolve to each of the answers in turn."""
    asked: list[str] = []
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    public = PublicNetwork(resolve=resolve, network=network)
    return Courier(settings(), public, context), asked


def message(url: str) -> Message:
    return Message("an-id", "local", url, b"{}")


async def test_a_name_that_changes_its_answer_is_not_followed_inside() -> None:
    async with receiving() as receiver:
        receiver.closes = True
        network = Network(receiver.port)
        one, asked = courier(network, [PUBLIC], ["127.0.0.1"], [PUBLIC, "10.0.0.1"], [])
        answers = [await one.post(message("http://evil.example/x")) for _ in range(4)]
        await one.close()
    assert asked == ["evil.example"] * 4
    assert network.connected == [PUBLIC]
    assert [answer.delivered for answer in answers] == [True, False, False, False]
    assert [answer.final for answer in answers] == [False, True, True, False]
    assert [got.headers["host"] for got in receiver.got] == ["evil.example"]


async def test_the_checked_address_is_the_one_connected_to() -> None:
    """The name is asked once: there is no second look whose answer nobody has checked."""
    async with receiving() as receiver:
        network = Network(receiver.port)
        one, asked = courier(network, ["1.1.1.1", "8.8.8.8"], ["127.0.0.1"])
        answer = await one.post(message("http://good.example:8123/x?y=z"))
        await one.close()
    assert answer.delivered
    assert (asked, network.connected) == (["good.example"], ["1.1.1.1"])
    assert receiver.got[0].headers["host"] == "good.example:8123"
    assert receiver.got[0].path == "/x?y=z"


async def test_tls_is_about_the_name_not_the_address(tmp_path: Path) -> None:
    key, certificate = _certificate("good.example")
    file = tmp_path / "server.pem"
    file.write_bytes(key + certificate)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    names: list[str | None] = []
    server.sni_callback = lambda socket, name, context: names.append(name)
    client = ssl.create_default_context(cadata=certificate.decode())
    async with receiving(server) as receiver:
        network = Network(receiver.port)
        one, _ = courier(network, [PUBLIC], context=client)
        good = await one.post(message("https://good.example/x"))
        other = await one.post(message("https://other.example/x"))
        await one.close()
    assert good.delivered
    assert not other.delivered
    assert names == ["good.example", "other.example"]
    assert network.connected == [PUBLIC, PUBLIC]
    assert len(receiver.got) == 1


def _certificate(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem)


@pytest.mark.parametrize(
    "host",
    THIS_MACHINE.split(),
)
async def test_no_way_of_writing_this_machine_leads_to_it(host: str) -> None:
    """With the system's own resolver, which reads decimal, octal and hexadecimal forms."""
    async with receiving() as receiver:
        one = Courier(settings())
        answer = await one.post(message(f"http://{host}:{receiver.port}/x"))
        await one.close()
    assert not answer.delivered
    assert receiver.connections == 0


async def test_private_addresses_can_be_allowed() -> None:
    async with receiving() as receiver:
        one = Courier(settings(webhook_private_addresses=True))
        answer = await one.post(message(receiver.url))
        await one.close()
    assert answer.delivered


async def test_another_address_is_tried_where_one_does_not_answer() -> None:
    class Half(Network):
        async def connect_tcp(
            self, host: str, port: int, *options: Any, **more: Any
        ) -> httpcore2.AsyncNetworkStream:
            if host == "2606:4700::1111":
                self.connected.append(host)
                raise httpcore2.ConnectError
            return await super().connect_tcp(host, port)

    async with receiving() as receiver:
        network = Half(receiver.port)
        one, _ = courier(network, ["2606:4700::1111", PUBLIC])
        answer = await one.post(message("http://good.example/x"))
        await one.close()
    assert answer.delivered
    assert network.connected == ["2606:4700::1111", PUBLIC]
