"""A safety checker in the folder is used; leaving it out is a setting that changes the identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from handler_client import open_client
from tiny import tiny_stable_diffusion, with_safety_checker
from unpacked import unpack


@pytest.mark.parametrize("flags", [True, False])
def test_a_flagged_picture_is_said_to_be_so(tmp_path: Path, flags: bool) -> None:
    pipeline = with_safety_checker(tiny_stable_diffusion(), flags=flags)
    client = open_client(unpack(tmp_path / "archive", pipeline))
    body = client.one({"prompt": "a cat", "num_images": 2})[2]
    assert body["flagged"] == [flags, flags]
    assert client.handler.service is not None
    client.handler.service.close()


def test_leaving_the_checker_out_is_another_identity(tmp_path: Path) -> None:
    pipeline = with_safety_checker(tiny_stable_diffusion(), flags=True)
    checked = open_client(unpack(tmp_path / "a", pipeline))
    without = open_client(unpack(tmp_path / "b", pipeline, safety_checker=False))
    assert without.one({"prompt": "a cat"})[2]["flagged"] == [False]
    assert checked.handler.service is not None
    assert without.handler.service is not None
    identities = {c.handler.service.record.identity for c in (checked, without)}
    assert len(identities) == 2
    for opened in (checked, without):
        opened.handler.service.close()
