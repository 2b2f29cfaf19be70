"""Receivers of alerts, for tests: what comes by HTTP and by mail is kept."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(frozen=True)
class Posted:
    """A message that came by HTTP."""

    path: str
    authorization: str | None
    document: dict[str, Any]


class Posts:
    """What came by HTTP, in order."""

    def __init__(self, url: str, posted: queue.Queue[Posted]) -> None:
        self.url = url
        self._posted = posted

    def next(self, patience: float = 30.0) -> Posted:
        """The next message; an error when none comes."""
        return self._posted.get(timeout=patience)

    def alert(self, name: str, status: str = "firing", patience: float = 60.0) -> dict[str, Any]:
        """The first alert of this name and status among Alertmanager's messages to come."""
        while True:
            for alert in self.next(patience).document["alerts"]:
                if (alert["labels"]["alertname"], alert["status"]) == (name, status):
                    return dict(alert)


@contextmanager
def http_receiver() -> Iterator[Posts]:
    """Takes every POST and answers what Slack, PagerDuty and webhooks all take for success."""
    posted: queue.Queue[Posted] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.put(Posted(self.path, self.headers["Authorization"], json.loads(body)))
            # PagerDuty's word for success is 202, and the others take any of 2xx.
            self.send_response(202)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Posts(f"http://127.0.0.1:{server.server_address[1]}", posted)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Mailbox:
    """An SMTP server's handler that asks for a password and keeps what comes."""

    def __init__(self, user: str, password: str) -> None:
        self._login = (user.encode(), password.encode())
        self._messages: queue.Queue[Message] = queue.Queue()

    def next(self, patience: float = 30.0) -> Message:
        return self._messages.get(timeout=patience)

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login, data.password) == self._login)

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert session.authenticated
        assert isinstance(envelope.content, bytes)
        self._messages.put(message_from_bytes(envelope.content))
        return "250 OK"


@contextmanager
def mail_receiver(port: int, user: str, password: str) -> Iterator[Mailbox]:
    """An SMTP server on this machine, without TLS."""
    mailbox = Mailbox(user, password)
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=mailbox.authenticate,
        auth_require_tls=False,
        # Its challenges are not in the words that Alertmanager knows.
        auth_exclude_mechanism=["LOGIN"],
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
