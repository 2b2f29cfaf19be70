"""Licences of what an environment holds, against those that the project may ship beside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.cli import ROOT
from serving.errors import Trouble

POLICY = ROOT / "config" / "licences.yaml"

_PARTS = re.compile(r";|\bAND\b|\bWITH\b")
_CHOICES = re.compile(r"\bOR\b")


@dataclass(frozen=True)
class Policy:
    """Which licences may be, by the names that packages give them, and which packages were read.

    Attributes:
        allowed: names, in lower case.
        looked_at: by package, what its licence is where its metadata do not say it so.
    """

    allowed: frozenset[str]
    looked_at: dict[str, str]

    @classmethod
    def read(cls, path: Path = POLICY) -> Policy:
        """The policy of a file; `Trouble` where it names what is not known."""
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        unknown = document.keys() - {"allowed", "looked_at"}
        if unknown:
            raise Trouble(f"{path}: unknown key {', '.join(sorted(unknown))}")
        allowed = frozenset(_name(str(one)) for one in document["allowed"])
        return cls(allowed, dict(document.get("looked_at") or {}))

    def allows(self, package: str, licence: str) -> bool:
        """Whether each part of a licence may be; of several to choose from, one is enough."""
        licence = self.looked_at.get(package, licence)
        parts = [part for part in _PARTS.split(licence) if part.strip(" ()")]
        return bool(parts) and all(
            any(_name(choice) in self.allowed for choice in _CHOICES.split(part)) for part in parts
        )


def _name(licence: str) -> str:
    """Without the brackets of an expression, which names that end with one lose as well."""
    return licence.strip(" ()").lower()


def of_environment(python: Path) -> list[dict[str, str]]:
    """Name, Version and License of each package that `python` sees."""
    command = [sys.executable, "-m", "piplicenses", f"--python={python}", "--format=json"]
    done = subprocess.run(
        [*command, "--from=mixed", "--with-system"], capture_output=True, text=True, check=True
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def faults(packages: list[dict[str, str]], policy: Policy) -> list[str]:
    """Packages whose licence the policy does not know; a sentence each."""
    return [
        f"{one['Name']} {one['Version']}: {one['License']} is not in config/licences.yaml"
        for one in packages
        if not policy.allows(one["Name"], one["License"])
    ]
