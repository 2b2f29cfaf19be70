"""The forms of models that a Triton has: which are loaded, which is asked, what holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient

from diffusion_gateway.upstream.model_server import AnswerError
from diffusion_gateway.upstream.triton_calls import errors
from diffusion_gateway.upstream.triton_messages import STREAM_SUFFIX, Form, family_of, newest

_LOADED = ("LOADING", "READY")


class Forms:
    """What the repository's index told, and the configurations of what was ever READY."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Form] = {}
        self._families: dict[str, list[Form]] = {}
        self._asked: dict[str, Form] = {}
        self._states: dict[str, str] = {}
        # Models that a loaded ensemble holds, by its name: Triton does not unload those.
        self._used: dict[str, str] = {}

    def __getitem__(self, name: str) -> Form:
        """The form that is asked for a model's pictures."""
        try:
            return self._asked[name]
        except KeyError:
            raise AnswerError(404, None, f"{name} is not registered", None) from None

    def get(self, name: str) -> Form | None:
        """The same, None where there is none."""
        return self._asked.get(name)

    def state(self, form: Form) -> str:
        """READY, LOADING, UNLOADING, UNAVAILABLE; unloaded for one that was put away on purpose."""
        return self._states[form.name]

    def loaded(self, name: str) -> list[Form]:
        """A model's forms that hold memory."""
        return [form for form in self._families.get(name, ()) if self.state(form) in _LOADED]

    def holder(self, name: str) -> str | None:
        """The loaded ensemble that keeps any of a model's forms from being unloaded."""
        forms = self._families.get(name, ())
        return next((self._used[form.name] for form in forms if form.name in self._used), None)

    async def look(self, client: InferenceServerClient, timeout_s: float) -> list[str]:
        """Asks again; returns the names of models that were loaded since Triton started."""
        with errors():
            index = await client.get_model_repository_index(client_timeout=timeout_s)
        there = newest(index.models)
        rows = {name: row for name, row in there.items() if row.state}
        families: dict[str, list[Form]] = {}
        used: dict[str, str] = {}
        for name, row in rows.items():
            form = await self._form(client, row, timeout_s)
            if form is None:
                form = _guessed(row, there)
            elif row.state == "READY":
                used |= dict.fromkeys(form.uses, name)
            if form is not None and form.draws:
                families.setdefault(form.family, []).append(form)
        self._states = {name: _state(row) for name, row in rows.items()}
        self._families, self._used = families, used
        self._asked = {family: max(forms, key=self._rank) for family, forms in families.items()}
        return list(self._asked)

    async def _form(self, client: InferenceServerClient, row: Any, timeout_s: float) -> Form | None:
        """A row's form; of one that sleeps as it was. None: this gateway has not seen it READY."""
        name, version = row.name, row.version
        known = self._known.get((name, version))
        if row.state == "READY" and (known is None or self._states.get(name) != "READY"):
            with errors():
                told = await client.get_model_config(name, version, client_timeout=timeout_s)
            known = self._known[(name, version)] = Form.of(name, version, told.config)
        return known

    def _rank(self, form: Form) -> tuple[int, bool]:
        """Rather one that is loaded than one that sleeps; then the one that streams."""
        state = self._states[form.name]
        return (_LOADED.index(state) + 1 if state in _LOADED else 0), form.decoupled


def _guessed(row: Any, there: Mapping[str, Any]) -> Form | None:
    """The form of one that Triton tells nothing of but its name: one of a pair, as this project's
    repositories have them, or None."""
    decoupled = family_of(row.name) != row.name
    if not decoupled and row.name + STREAM_SUFFIX not in there:
        return None
    return Form(row.name, row.version, {"describe": "BOOL"}, 1, 1, decoupled)


def _state(row: Any) -> str:
    asleep = row.state == "UNAVAILABLE" and row.reason in ("unloaded", "")
    return "unloaded" if asleep else str(row.state)
