"""What an operator does to registered models, without losing a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from serving.draining import drain
from serving.errors import Trouble
from serving.model_store import require_archive
from serving.notes import Note, read_notes, write_notes
from serving.registration import Registration
from serving.server import Server
from serving.variant import (
    identity_of,
    make_variant,
    next_version,
    remove_variant,
    unpacked_folder,
    variant_versions,
)

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
        self._folder = server.folder
        self._log = server.logs / "ts_log.log"
        self._progress = progress

    def register(self, archive: str, name: str) -> Registration:
        """Registers an archive of the model store and waits until it is READY."""
        require_archive(self.store, archive)
        self._progress(f"loading {archive} as {name}")
        found = self.management.register(archive, name)
        self._note()
        return found

    def restore(self) -> tuple[list[str], list[str]]:
        """Registers what a server of this folder served when it died.

        Returns the names of what is back, and for each of the others a sentence that says why not;
        those stay noted until something else is registered or removed.
        """
        present = self.management.models()
        back, lost = [], []
        for note in read_notes(self._folder):
            if note.name in present:
                continue
            try:
                self._restore(note)
                back.append(note.name)
            except Trouble as trouble:
                lost.append(f"{note.name} is not back: {trouble}")
        if back and not lost:
            self._note()
        return back, lost

    def _restore(self, note: Note) -> None:
        require_archive(self.store, note.archive)
        self._progress(f"loading {note.archive} as {note.name}")
        found = self.management.register(
            note.archive, note.name, batch_size=note.batch_size, delay=note.delay
        )
        # None: it slept, and its next job may find it awake.
        if note.workers > len(found.workers):
            self.management.scale(note.name, found.version, note.workers)

    def unregister(
        self, name: str, version: str | None = None, force: bool = False
    ) -> list[Registration]:
        """Drains and removes one version, or all of them and the copies; returns what it removed.

        `force` removes at once: requests in hand are lost.
        """
        last = self.management.version(name, version)
        chosen = [last]
        if version is None:
            # The default one goes last: TorchServe refuses to remove it while there are others.
            others = [one for one in self.management.versions(name) if not one.default]
            chosen = [*self.copies(last), *others, last]
        for found in chosen:
            self._remove(found, force)
        self._note()
        return chosen

    def update(self, name: str, archive: str) -> list[tuple[Registration, Registration]]:
        """Replaces a model's default version, and its copies one by one, by another archive.

        Returns the old and the new one of each, NAME's own first.
        """
        require_archive(self.store, archive)
        first = self.management.version(name)
        changed = []
        # NAME last: if this is cut short, what is still to do can be told by being a copy of it.
        for old in (*self.copies(first), first):
            new = self._load_beside(old, archive)
            changed.append((old, self._switch(old, new, workers=len(old.workers))))
            # All of them the very same archive, if it had to be made anew.
            archive = new.archive
        self._note()
        return [changed[-1], *changed[:-1]]

    def rebatch(
        self, name: str, size: int, delay: int | None
    ) -> list[tuple[Registration, Registration]]:
        """The same archive, copies too, with another batch size and delay (ms; None: as it is)."""
        first = self.management.version(name)
        delay = first.delay if delay is None else delay
        changed = [
            (old, self._renew(old, size, delay, len(old.workers)))
            for old in (*self.copies(first), first)
        ]
        self._note()
        return [changed[-1], *changed[:-1]]

    def scale(self, name: str, workers: int) -> list[Registration]:
        """Sets the number of workers; returns the registrations that serve afterwards.

        More workers join the running version. Fewer: TorchServe would kill one with its requests in
        hand, so a smaller copy of the version takes over and the larger one is drained. With
        continuous batching each worker needs a registration of its own: NAME, NAME-2, NAME-3.
        """
        old = self.management.version(name)
        if old.continuous:
            found = self._scale_registrations(old, workers)
        elif workers < len(old.workers):
            found = [self._renew(old, old.batch_size, old.delay, workers)]
        else:
            self._progress(f"{name}: {len(old.workers)} to {workers} workers")
            found = [self.management.scale(name, old.version, workers)]
        self._note()
        return found

    def copies(self, first: Registration) -> list[Registration]:
        """Further registrations of the same archive, in order: NAME-2, NAME-3."""
        numbered = re.compile(rf"{re.escape(first.name)}-(\d+)")
        named = {
            int(match.group(1)): name
            for name in self.management.models()
            if first.continuous and (match := numbered.fullmatch(name))
        }
        like_it = (self.management.version(name) for _, name in sorted(named.items()))
        found = [one for one in like_it if one.continuous]
        identity = identity_of(first) if found else None
        return [
            one
            for one in found
            if one.archive == first.archive
            # An update may have given it a folder of its own.
            or (identity is not None and identity_of(one) == identity)
        ]

    def _scale_registrations(self, first: Registration, workers: int) -> list[Registration]:
        names = [first.name, *(f"{first.name}-{number}" for number in range(2, workers + 1))]
        present = self.management.models()
        copies = [copy.name for copy in self.copies(first)]
        for name in names[1:]:
            if name in present and name not in copies:
                raise Trouble(f"{name} is another model, and {first.name} needs the name.")
        for name in names[1:]:
            if name not in present:
                self._progress(f"registering {name}")
                self.management.register(
                    first.archive, name, batch_size=first.batch_size, delay=first.delay
                )
        for name in copies:
            if name not in names:
                self._remove(self.management.version(name))
        return [self.management.wait_ready(name) for name in names]

    def _load_beside(self, old: Registration, archive: str) -> Registration:
        """`archive` as another version of the model that `old` is, ready."""
        self._progress(f"loading {archive} as {old.name}")
        try:
            return self.management.register(archive, old.name)
        except Trouble as trouble:
            taken = re.search(r"Model version (\S+) is already registered", str(trouble))
            if taken is None:
                raise
            archive = self._as_new_version(old.name, archive, taken.group(1))
            return self.management.register(archive, old.name)

    def _renew(self, old: Registration, size: int, delay: int, workers: int) -> Registration:
        """The version `old` again, under a version name of its own and with these settings."""
        version = self._free_version(old.name, old.version)
        archive = make_variant(self.store, unpacked_folder(old), old.name, version)
        self._progress(f"loading {old.name} {version}")
        new = self.management.register(archive, old.name, batch_size=size, delay=delay)
        return self._switch(old, new, workers)

    def _as_new_version(self, name: str, archive: str, version: str) -> str:
        """A variant of an archive whose version is registered already.

        TorchServe unpacks it, under a name that nobody calls, so that every format works alike.
        """
        staged = self.management.register(archive, f"{name}-staging")
        try:
            source = unpacked_folder(staged)
            return make_variant(self.store, source, name, self._free_version(name, version))
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
        if found.archive not in {one.archive for one in self._registered()}:
            remove_variant(self.store, found.archive)

    def _free_version(self, name: str, version: str) -> str:
        """`version`, or a revision of it that neither a registration nor a variant has."""
        registered = [found.version for found in self.management.versions(name)]
        return next_version(version, [*registered, *variant_versions(self.store, name)])

    def _registered(self) -> list[Registration]:
        names = self.management.models()
        return [found for name in names for found in self.management.versions(name)]

    def _note(self) -> None:
        write_notes(self._folder, (found for found in self._registered() if found.default))
