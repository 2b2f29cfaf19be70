"""Whether the tools can trust the certificate that TorchServe was given, and what it lacks."""

from __future__ import annotations

import ssl

from serving.errors import Trouble

# Of OpenSSL's X509_V_ERR_*.
_EXPIRED = 10
_SIGNED_BY_ANOTHER = (2, 20, 21)
_FOR_ANOTHER = (62, 64)

_SELF_SIGNED = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 825 -keyout key.pem -out certificate.pem "
    '-subj "/CN=$(hostname)" -addext "subjectAltName=IP:127.0.0.1,DNS:$(hostname)"'
)


def refusal(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refused certificate behind an error of a connection; None where it was something else."""
    seen: list[BaseException] = []
    ahead = [error]
    while ahead:
        found = ahead.pop()
        if isinstance(found, ssl.SSLCertVerificationError):
            return found
        seen.append(found)
        others = (*found.args, getattr(found, "reason", None), found.__cause__, found.__context__)
        ahead += [one for one in others if isinstance(one, BaseException) and one not in seen]
    return None


def unfit(refused: ssl.SSLCertVerificationError, certificate: str | None) -> Trouble:
    """What a certificate lacks that these tools, which ask at 127.0.0.1, refused."""
    lacks = f"it is refused: {refused.verify_message}"
    if refused.verify_code in _SIGNED_BY_ANOTHER:
        lacks = "another one signed it, and the file does not hold the chain up to its root"
    elif refused.verify_code in _FOR_ANOTHER:
        lacks = "its subjectAltName does not name IP:127.0.0.1"
    elif refused.verify_code == _EXPIRED:
        lacks = "it has expired"
    return Trouble(
        f"{certificate} does not do for TorchServe: the tools and a gateway on this machine ask at "
        f"127.0.0.1 and trust this file itself, and {lacks}. Let a proxy before the gateway show "
        f"your certificate to clients, and make one for TorchServe:\n{_SELF_SIGNED}"
    )
