"""The embedded store through kill -9, a full disk, and more than one process at the file."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract_jobs import OPEN, claim, drained, ended, job, submit, under_way
from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import StoreUnavailableError, UnknownJobError
from diffusion_gateway.job import Lane, Status
from diffusion_gateway.stores.sqlite_keys import SqliteKeys
from diffusion_gateway.stores.sqlite_store import SqliteStore
from diffusion_gateway.stores.store import MAX_ATTEMPTS, KeyRecord

LARGE = {"prompt": "x" * 20_000}

SUBMITTER = """
import asyncio, os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from contract_jobs import OPEN, claim, job, result
from diffusion_gateway.job import Lane, Status
from diffusion_gateway.stores.sqlite_store import SqliteStore

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def submit(store):
    while True:
        made = job()
        say("sent", made.id)
        await store.submit(made, OPEN)
        say("accepted", made.id)

async def work(store):
    while True:
        claimed = await store.claim("w", "emoji", tuple(Lane), 60.0)
        if claimed is None:
            await asyncio.sleep(0.001)
        elif await store.end(claimed, Status.COMPLETED, result=result(claimed.id)):
            say("ended", claimed.id)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*(submit(store) for _ in range(8)), *(work(store) for _ in range(2)))

asyncio.run(main())
"""


def submitter(path: Path) -> subprocess.Popen[str]:
    """Another process that submits and ends jobs as fast as it can, and says so."""
    program = [sys.executable, "-c", SUBMITTER, str(path), *filter(None, sys.path)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True)


def killed_after(process: subprocess.Popen[str], lines: int) -> list[list[str]]:
    """What the process has said when it is killed after some lines."""
    assert process.stdout is not None
    said = [process.stdout.readline().split() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    # A line may have been cut short.
    said += [line.split() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    process.wait()
    return said


@pytest.mark.parametrize(
    ("rounds", "lines"), [(4, 300), pytest.param(100, 2000, marks=pytest.mark.full)]
)
async def test_what_was_accepted_is_there_after_kill_9(
    tmp_path: Path, rounds: int, lines: int
) -> None:
    chance, path = random.Random(1), tmp_path / "jobs.sqlite"
    accepted: set[str] = set()
    completed: set[str] = set()
    for _ in range(rounds):
        for word, job_id in killed_after(submitter(path), chance.randrange(1, lines)):
            if word == "accepted":
                accepted.add(job_id)
            elif word == "ended":
                completed.add(job_id)
    assert accepted
    store = SqliteStore(path)
    await store.open()
    for job_id in accepted:
        found = await store.get(job_id)
        assert found.status is Status.COMPLETED or job_id not in completed
        assert found.status is not Status.PROCESSING
    waiting = {each for each in accepted if (await store.get(each)).status is Status.PENDING}
    assert waiting <= set(await drained(store))
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await store.close()


async def test_commits_reach_the_disk_before_the_answer(sqlite_store: SqliteStore) -> None:
    for each in (sqlite_store.read, sqlite_store.write):
        mode = await each(
            lambda to: (
                to.execute("PRAGMA journal_mode").fetchone()[0],
                to.execute("PRAGMA synchronous").fetchone()[0],
            )
        )
        assert mode == ("wal", 2)


async def test_what_waits_shares_a_commit(sqlite_store: SqliteStore) -> None:
    said: list[str] = []
    await sqlite_store.write(lambda to: to.connection.set_trace_callback(said.append))
    await asyncio.gather(*(submit(sqlite_store) for _ in range(500)))
    await sqlite_store.write(lambda to: to.connection.set_trace_callback(None))
    assert sum(line == "COMMIT" for line in said) <= 10


async def test_one_that_fails_harms_no_other_of_its_group(sqlite_store: SqliteStore) -> None:
    def broken(to: object) -> None:
        raise ZeroDivisionError

    def misspelt(to: sqlite3.Connection) -> None:
        to.execute("SELECT nothing FROM nowhere")

    outcomes = await asyncio.gather(
        submit(sqlite_store),
        sqlite_store.write(broken),
        submit(sqlite_store),
        sqlite_store.write(misspelt),  # type: ignore[arg-type]
        submit(sqlite_store),
        return_exceptions=True,
    )
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == ["Job", "ZeroDivisionError", "Job", "StoreUnavailableError", "Job"]
    assert len(await drained(sqlite_store)) == 3


async def test_leases_end_with_the_process(tmp_path: Path) -> None:
    """Its workers lived in it: nobody is to blame, and nobody waits for a lease to run out."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    taken, waiting = await under_way(store), await submit(store)
    done = await ended(store, lane=Lane.URGENT)
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.get(done.id)
    again = SqliteStore(tmp_path / "jobs.sqlite")
    await again.open()
    assert await again.get(done.id) == done
    assert [(each.lane, each.waiting, each.leased) for each in await again.depths()] == [
        (Lane.RETURNED, 1, 0),
        (Lane.NORMAL, 1, 0),
    ]
    claimed = await claim(again)
    assert (claimed.id, claimed.attempts, claimed.alone) == (taken.id, 2, False)
    assert await drained(again) == [waiting.id]
    assert not await store_is_free(tmp_path / "jobs.sqlite")
    await again.close()


async def test_a_job_that_takes_its_process_down_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that takes its worker down: the first loss is nobody's fault, then it is alone."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    made = await submit(store)
    for attempt in range(1, MAX_ATTEMPTS + 2):
        claimed = await claim(store)
        assert (claimed.attempts, claimed.alone) == (attempt, attempt > 2)
        await store.close()
        await store.open()
    given_up = await store.get(made.id)
    assert given_up.status is Status.FAILED
    assert given_up.error is not None
    assert given_up.error["code"] == "attempts_exhausted"
    assert sum(made.id in record.getMessage() for record in caplog.records) == MAX_ATTEMPTS + 1
    await store.close()


async def store_is_free(path: Path) -> bool:
    other = SqliteStore(path)
    try:
        await other.open()
    except ConfigError as error:
        return (error.field, "another gateway" in error.message) != ("store_url", True)
    await other.close()
    return True


async def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    process = submitter(path)
    assert process.stdout is not None
    process.stdout.readline()
    assert not await store_is_free(path)
    killed_after(process, 1)
    assert await store_is_free(path)
    assert await store_is_free(path)


async def test_keys_are_kept_while_a_gateway_is_running(sqlite_store: SqliteStore) -> None:
    """A command in another process makes and revokes keys."""
    command = SqliteKeys(sqlite_store.path)
    await command.open()
    await asyncio.gather(
        *(command.put_key(KeyRecord(str(n), f"hash {n}", "one", n, {})) for n in range(20)),
        *(submit(sqlite_store) for _ in range(20)),
    )
    assert len(await sqlite_store.keys()) == 20
    await command.revoke_key("7")
    assert await sqlite_store.find_key("hash 7") is None
    assert await sqlite_store.find_key("hash 8") is not None
    await command.close()
    assert len(await drained(sqlite_store)) == 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting needs to be root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_accepts_nothing(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "jobs.sqlite")
    await store.open()
    kept, refused = [], []
    for _ in range(40):
        made = [job(fields=LARGE) for _ in range(8)]
        answers = await asyncio.gather(
            *(store.submit(each, OPEN) for each in made), return_exceptions=True
        )
        for each, answer in zip(made, answers, strict=True):
            if isinstance(answer, StoreUnavailableError):
                refused.append(each)
            else:
                assert not isinstance(answer, BaseException)
                kept.append(each)
    assert kept
    assert len(refused) > 8
    for each in kept:
        assert (await store.get(each.id)).fields == each.fields
    for each in refused:
        with pytest.raises(UnknownJobError):
            await store.get(each.id)
    assert sum(depth.waiting for depth in await store.depths()) == len(kept)
    await store.close()


async def fill(store: SqliteStore) -> None:
    """Lets the file grow no more, and submits jobs until there is no room for another."""
    (pages,) = await store.read(lambda to: to.execute("PRAGMA page_count").fetchone())
    await store.write(lambda to: to.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(StoreUnavailableError):
        await asyncio.gather(*(submit(store, fields=LARGE) for _ in range(50)))


async def test_a_disk_with_room_again_takes_jobs_again(sqlite_store: SqliteStore) -> None:
    done = await ended(sqlite_store, fields={"prompt": "x" * 100_000})
    await fill(sqlite_store)
    await sqlite_store.delete(done.id)
    taken = await submit(sqlite_store, fields=LARGE)
    assert taken.id in await drained(sqlite_store)
    await sqlite_store.ping()


async def test_jobs_end_on_a_full_disk(sqlite_store: SqliteStore) -> None:
    claimed = [await under_way(sqlite_store) for _ in range(3)]
    await fill(sqlite_store)
    for each in claimed:
        assert await sqlite_store.end(each, Status.FAILED, error={"code": "x"})


@pytest.mark.parametrize("body", [b"", b"not a database" * 100])
async def test_what_is_no_store_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "file").write_bytes(body)
    store = SqliteStore(tmp_path / "file")
    if body:
        with pytest.raises(ConfigError, match="store_url"):
            await store.open()
        assert (tmp_path / "file").read_bytes() == body
    else:
        await store.open()
        await store.close()


async def test_what_a_newer_gateway_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="format 99"):
        await SqliteStore(path).open()
    with pytest.raises(ConfigError, match="cannot be opened"):
        await SqliteStore(tmp_path).open()
