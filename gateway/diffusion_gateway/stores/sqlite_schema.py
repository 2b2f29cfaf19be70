"""The tables of the embedded store, and how its file is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from diffusion_core.errors import ConfigError

VERSION = 3

_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    record TEXT NOT NULL,           -- what was asked, see job_record.asked
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    work REAL NOT NULL,
    charge REAL NOT NULL,           -- work over the tenant's weight
    deadline REAL,
    submitted_at REAL NOT NULL,
    idempotency_key TEXT,
    status TEXT NOT NULL,
    lane INTEGER NOT NULL,
    queued INTEGER NOT NULL,        -- 1 while a worker can take it
    rank REAL,
    start REAL,                     -- on the virtual line of its queue, see fair_queue
    started_at REAL,
    ended_at REAL,
    attempts INTEGER NOT NULL,
    alone INTEGER NOT NULL,
    worker TEXT,
    step INTEGER NOT NULL,
    checkpoint TEXT,
    result TEXT,
    error TEXT,
    follows TEXT,
    event INTEGER NOT NULL          -- id of the last status change
);
CREATE INDEX queue ON jobs (model, lane, rank, id) WHERE queued = 1;
CREATE INDEX of_tenant ON jobs (tenant, status, id);
CREATE INDEX of_status ON jobs (status, id);
CREATE INDEX followers ON jobs (follows, submitted_at, id) WHERE follows IS NOT NULL;
CREATE INDEX deadlines ON jobs (deadline, id) WHERE status = 'pending' AND deadline IS NOT NULL;
CREATE INDEX ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX idempotency ON jobs (tenant, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- How many jobs of a tenant have a status; kept by the triggers below.
CREATE TABLE counts (
    status TEXT NOT NULL, tenant TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (status, tenant)
) WITHOUT ROWID;
CREATE TRIGGER counts_insert AFTER INSERT ON jobs BEGIN
    INSERT INTO counts VALUES (new.status, new.tenant, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER counts_delete AFTER DELETE ON jobs BEGIN
    UPDATE counts SET n = n - 1 WHERE status = old.status AND tenant = old.tenant;
    DELETE FROM counts WHERE status = old.status AND tenant = old.tenant AND n = 0;
END;
CREATE TRIGGER counts_update AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
    UPDATE counts SET n = n - 1 WHERE status = old.status AND tenant = old.tenant;
    DELETE FROM counts WHERE status = old.status AND tenant = old.tenant AND n = 0;
    INSERT INTO counts VALUES (new.status, new.tenant, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;

-- Fair queueing: the virtual time of a queue, and where a tenant's last job ends on its line.
CREATE TABLE queues (
    model TEXT NOT NULL, lane INTEGER NOT NULL, virtual_time REAL NOT NULL,
    PRIMARY KEY (model, lane)
) WITHOUT ROWID;
CREATE TABLE horizons (
    model TEXT NOT NULL, lane INTEGER NOT NULL, tenant TEXT NOT NULL, horizon REAL NOT NULL,
    PRIMARY KEY (model, lane, tenant)
) WITHOUT ROWID;
CREATE INDEX past ON horizons (model, lane, horizon);

-- The job that draws what others with the same cache key wait for.
CREATE TABLE generations (cache_key TEXT PRIMARY KEY, job TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX generations_of ON generations (job);

CREATE TABLE cache (
    cache_key TEXT PRIMARY KEY, result TEXT NOT NULL, bytes INTEGER NOT NULL,
    expires REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX cache_used ON cache (used);
CREATE INDEX cache_expires ON cache (expires);
CREATE TABLE sums (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER cache_insert AFTER INSERT ON cache BEGIN
    INSERT INTO sums VALUES ('cache_bytes', new.bytes)
        ON CONFLICT DO UPDATE SET n = n + excluded.n;
END;
CREATE TRIGGER cache_delete AFTER DELETE ON cache BEGIN
    UPDATE sums SET n = n - old.bytes WHERE name = 'cache_bytes';
END;

-- Ends that webhooks have yet to be told.
CREATE TABLE deliveries (
    job TEXT PRIMARY KEY, due REAL NOT NULL, attempts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (due);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
    created_at REAL NOT NULL, settings TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE pings (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""

_USAGE = """
CREATE TABLE usage (
    slot INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, bucket TEXT NOT NULL,
    machine TEXT NOT NULL, purchase TEXT NOT NULL, currency TEXT NOT NULL,
    nanos INTEGER NOT NULL, micros INTEGER NOT NULL, jobs INTEGER NOT NULL, images INTEGER NOT NULL,
    PRIMARY KEY (tenant, slot, model, bucket, machine, purchase, currency)
) WITHOUT ROWID;
CREATE INDEX usage_slots ON usage (slot);

-- What was charged of late, so that nothing is charged twice.
CREATE TABLE charged (entry TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX charged_at ON charged (at);
"""
"""Since version 2."""

_SPARED = """
ALTER TABLE jobs ADD COLUMN spared INTEGER NOT NULL DEFAULT 0;  -- 1 after a loss without blame
"""
"""Since version 3."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables that are missing; refuses a file that a newer gateway wrote."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version > VERSION:
        raise ConfigError(
            f"store_url: {path} has the format {version}, this gateway reads {VERSION}",
            field="store_url",
        )
    missing = "".join((_SCHEMA, _USAGE, _SPARED)[version:])
    connection.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {VERSION}; COMMIT;")
