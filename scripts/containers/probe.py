"""What the kubelet asks of a TorchServe container: standard library only, for it runs every few
seconds."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_PATIENCE_S = 4.0
_LOOK_S = 0.5

# The pod's own addresses: a proxy in the environment has no part in it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(arguments: list[str] | None = None) -> int:
    """0 for yes, 1 for no, with the reason."""
    asked = _parser().parse_args(arguments)
    reason: str | None
    if asked.question == "alive":
        reason = alive(asked.inference)
    elif asked.question == "drained":
        reason = drained(asked.gateway, asked.within)
    else:
        reason = loaded(asked.management, asked.models, every=asked.question == "started")
    if reason is not None:
        print(reason)
    return int(reason is not None)


def alive(inference: str) -> str | None:
    """Whether TorchServe's frontend answers, whatever it says: workers may load for long."""
    try:
        _OPENER.open(f"{inference}/ping", timeout=_PATIENCE_S).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return f"TorchServe does not answer: {type(error).__name__}"
    return None


def loaded(management: str, models: Path, *, every: bool) -> str | None:
    """Whether each model can draw: in `every` registration, or in one; one that sleeps can."""
    for name, model in json.loads(models.read_text()).items():
        copies = range(2, model.get("registrations", 1) + 1)
        states = [_state(management, one) for one in (name, *(f"{name}-{n}" for n in copies))]
        good = [state in ("READY", "asleep") for state in states]
        if not (all(good) if every else any(good)):
            return f"{name}: {', '.join(states)}"
    return None


def drained(gateway: str, within_s: float) -> str | None:
    """Waits until nobody listens at `gateway`: its worker has handed on what it held."""
    host, _, port = gateway.rpartition(":")
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
        except ConnectionRefusedError:
            return None
        except OSError:
            pass
        time.sleep(_LOOK_S)
    return f"the worker has not drained within {within_s:.0f} s"


def _state(management: str, name: str) -> str:
    """READY, asleep, or what keeps the registration from drawing."""
    try:
        with _OPENER.open(f"{management}/models/{name}", timeout=_PATIENCE_S) as answer:
            workers: list[dict[str, Any]] = json.load(answer)[0]["workers"]
    except urllib.error.HTTPError as error:
        return f"not registered ({error.code})"
    except (OSError, ValueError, LookupError) as error:
        return type(error).__name__
    states = [str(worker["status"]) for worker in workers]
    if not states:
        return "asleep"
    return "READY" if "READY" in states else states[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inference", default="http://127.0.0.1:8080")
    parser.add_argument("--management", default="http://127.0.0.1:8081")
    parser.add_argument("--gateway", default="127.0.0.1:8000")
    questions = parser.add_subparsers(dest="question", required=True)
    questions.add_parser("alive", help="TorchServe answers")
    for name, text in (
        ("started", "every registration is READY"),
        ("ready", "each model can draw"),
    ):
        question = questions.add_parser(name, help=text)
        question.add_argument("models", type=Path, help="the models' JSON")
    waiting = questions.add_parser("drained", help="waits for the end of the gateway's worker")
    waiting.add_argument("--within", type=float, required=True, help="seconds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
