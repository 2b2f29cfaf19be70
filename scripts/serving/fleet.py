"""What an operator does to registered models, without losing a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from serving.draining import drain
from serving.errors import Trouble
from serving.registration import Registration
from serving.server import Server
from serving.variant import make_variant, next_version, remove_variant, unpacked_folder

# Longer than responseTimeout of any config shipped: after that TorchServe ends a request itself.
PATIENCE = 900.0


class Fleet:
    """The models of a running server.

    Args:
        server: the server, which must be running.
        progress: told in words what happens during long steps.
    """

    def __init__(self, server: Server, progress: Callable[[str], None] = lambda _: None) -> None:
        self.management = server.management()
        self.store = Path(server.require().model_store)
        self._log = server.logs / "ts_log.log"
        self._progress = progress

    def register(self, archive: str, name: str) -> Registration:
        """Registers an archive of the model store and waits until it is READY."""
        require_archive(self.store, archive)
        self._progress(f"loading {archive} as {name}")
        return self.management.register(archive, name)

    def unregister(self, name: str, version: str | None = None, force: bool = False) -> list[str]:
        """Drains and removes one version, or all of them; returns the versions removed.

        `force` removes at once: requests in hand are lost.
        """
        versions = self.management.versions(name)
        chosen = [found for found in versions if version in (None, found.version)]
        if not chosen:
            self.management.version(name, version)
        # The default one goes last: TorchServe refuses to remove it while there are others.
        for found in sorted(chosen, key=lambda one: one.default):
            self._remove(found, force)
        return [found.version for found in chosen]

    def update(self, name: str, archive: str) -> tuple[Registration, Registration]:
        """Replaces the default version by another archive; returns the old and the new one."""
        require_archive(self.store, archive)
        old = self.management.version(name)
        self._progress(f"loading {archive}")
        try:
            new = self.management.register(archive, name)
        except Trouble as trouble:
            taken = re.search(r"Model version (\S+) is already registered", str(trouble))
            if taken is None:
                raise
            archive = self._as_new_version(name, archive, taken.group(1))
            new = self.management.register(archive, name)
        return old, self._switch(old, new, workers=len(old.workers))

    def rebatch(self, name: str, size: int, delay: int | None) -> tuple[Registration, Registration]:
        """The same archive with another batch size and delay (ms; None keeps the present one)."""
        old = self.management.version(name)
        delay = old.delay if delay is None else delay
        return old, self._renew(old, size, delay, len(old.workers))

    def scale(self, name: str, workers: int) -> list[Registration]:
        """Sets the number of workers; returns the registrations that serve afterwards.

        More workers join the running version. Fewer: TorchServe would kill one with its requests in
        hand, so a smaller copy of the version takes over and the larger one is drained. With
        continuous batching each worker needs a registration of its own: NAME, NAME-2, NAME-3.
        """
        old = self.management.version(name)
        if old.continuous:
            return self._scale_registrations(old, workers)
        if workers < len(old.workers):
            return [self._renew(old, old.batch_size, old.delay, workers)]
        self._progress(f"{name}: {len(old.workers)} to {workers} workers")
        return [self.management.scale(name, old.version, workers)]

    def _scale_registrations(self, first: Registration, workers: int) -> list[Registration]:
        names = [first.name, *(f"{first.name}-{number}" for number in range(2, workers + 1))]
        present = self.management.models()
        for name in names[1:]:
            if name not in present:
                self._progress(f"registering {name}")
                self.management.register(first.archive, name)
        copies = re.compile(rf"{re.escape(first.name)}-(\d+)")
        for name in present:
            copy = copies.fullmatch(name)
            if copy and int(copy.group(1)) > workers:
                self.unregister(name)
        return [self.management.wait_ready(name) for name in names]

    def _renew(self, old: Registration, size: int, delay: int, workers: int) -> Registration:
        """The version `old` again, under a version name of its own and with these settings."""
        taken = [found.version for found in self.management.versions(old.name)]
        version = next_version(old.version, taken)
        archive = make_variant(self.store, unpacked_folder(old), old.name, version)
        self._progress(f"loading {old.name} {version}")
        new = self.management.register(archive, old.name, batch_size=size, delay=delay)
        return self._switch(old, new, workers)

    def _as_new_version(self, name: str, archive: str, version: str) -> str:
        """A variant of an archive whose version is registered already.

        TorchServe unpacks it, under a name that nobody calls, so that every format works alike.
        """
        taken = [found.version for found in self.management.versions(name)]
        staged = self.management.register(archive, f"{name}-staging")
        try:
            source = unpacked_folder(staged)
            return make_variant(self.store, source, name, next_version(version, taken))
        finally:
            self._remove(staged)

    def _switch(self, old: Registration, new: Registration, workers: int) -> Registration:
        """Warms `new` to `workers`, makes it the default, drains and removes `old`."""
        if len(new.workers) != workers:
            self.management.scale(new.name, new.version, workers)
        self.management.make_default(new.name, new.version)
        self._remove(old)
        return self.management.version(new.name, new.version)

    def _remove(self, found: Registration, force: bool = False) -> None:
        if not force:
            self._progress(f"draining {found.name} {found.version}")
            drain(self.management, found, self._log, PATIENCE, self._progress)
        self.management.unregister(found.name, found.version)
        remove_variant(self.store, found.archive)


def require_archive(store: Path, archive: str) -> None:
    """`Trouble` listing what the model store holds where `archive` is not in it."""
    if not archive or not (store / archive).exists():
        held = ", ".join(sorted(path.name for path in store.iterdir() if path.name[0] != "."))
        raise Trouble(f"{store} holds no archive {archive!r} (it holds: {held or 'nothing'}).")
