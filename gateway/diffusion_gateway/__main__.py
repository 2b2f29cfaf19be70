"""The gateway's commands: `python -m diffusion_gateway --help`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import psutil
import typer
from rich.console import Console
from rich.table import Table

from diffusion_core.errors import ConfigError, ServingError
from diffusion_gateway.settings import GatewaySettings, read_settings
from diffusion_gateway.stores import open_keys, open_usage, store_shown
from diffusion_gateway.tenants import Tenants, TenantSettings, tenant_settings

T = TypeVar("T")

app = typer.Typer(
    help="The job gateway.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

console = Console(soft_wrap=True, highlight=False)

_GRACE_S = 10.0
_LOOK_S = 0.1

Config = Annotated[
    Path | None,
    typer.Option(help="Settings; without it, the defaults and GATEWAY_<NAME> of the environment."),
]
PidFile = Annotated[
    Path, typer.Option(help="Where a running gateway notes its process, and beside it its models.")
]
PID_FILE = Path("run/gateway/gateway.pid")


@app.command()
def serve(
    config: Config = None,
    host: str | None = None,
    port: int | None = None,
    role: Annotated[str | None, typer.Option(help="all, api or worker.")] = None,
    store_url: str | None = None,
    results_url: str | None = None,
    pid_file: PidFile = PID_FILE,
) -> None:
    """Serves until it is told to end (SIGTERM or Ctrl+C), then drains."""
    from diffusion_gateway.process import run

    overrides = {
        "host": host,
        "port": port,
        "role": role,
        "store_url": store_url,
        "results_url": results_url,
    }
    run(read_settings(config, overrides), pid_file)


@app.command()
def drain(config: Config = None, pid_file: PidFile = PID_FILE) -> None:
    """Ends the running gateway: it takes nothing new, hands back what it holds and exits.

    Returns when it is gone; for preStop hooks.
    """
    patience = read_settings(config).drain_s + _GRACE_S
    gateway = _running(pid_file)
    with contextlib.suppress(psutil.NoSuchProcess):
        gateway.send_signal(signal.SIGTERM)
    end = time.monotonic() + patience
    while _lives(gateway):
        if time.monotonic() > end:
            raise ConfigError(
                f"the gateway (process {gateway.pid}) is still there after {patience:.0f} s"
            )
        time.sleep(_LOOK_S)
    console.print("The gateway has drained and ended.")


@app.command()
def usage(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day.")],
    config: Config = None,
    timezone: Annotated[str, typer.Option(help="Whose days.")] = "UTC",
) -> None:
    """Prints what was spent as CSV, by day, tenant, model, bucket and machine."""
    from zoneinfo import ZoneInfo, available_timezones

    from diffusion_gateway.costs.usage_table import usage_between, write_csv

    if timezone not in available_timezones():
        raise ConfigError(f"timezone: {timezone} is no time zone of the IANA database")

    async def read() -> Any:
        store = open_usage(read_settings(config).store_url)
        await store.open()
        try:
            return await usage_between(store, first.date(), last.date(), ZoneInfo(timezone))
        finally:
            await store.close()

    write_csv(sys.stdout, asyncio.run(read()))


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Argument(help="Whose key: lower-case letters, digits, . _ -")],
    config: Config = None,
    weight: Annotated[float | None, typer.Option(help="Share of each queue; 1 is usual.")] = None,
    requests_per_second: float | None = None,
    burst: int | None = None,
    max_active: Annotated[int | None, typer.Option(help="Unfinished jobs.")] = None,
    cache: Annotated[bool, typer.Option(help="Results may come from the cache.")] = True,
) -> None:
    """Makes a key and prints it, once: only its hash is kept, in the store of these settings."""
    given = {
        "weight": weight,
        "requests_per_second": requests_per_second,
        "burst": burst,
        "max_active": max_active,
        "cache": cache,
    }
    bounds = _bounds({name: value for name, value in given.items() if value is not None})

    async def create(tenants: Tenants) -> str:
        record, key = await tenants.create(tenant, bounds)
        place = store_shown(read_settings(config).store_url)
        told = f"Key {record.id} of {tenant}, kept in {place}:"
        Console(stderr=True, soft_wrap=True).print(told, markup=False, highlight=False)
        return key

    print(_with_tenants(config, create))


@keys.command("list")
def list_keys(config: Config = None) -> None:
    """Lists keys: their ids, tenants and bounds, never the keys."""

    async def listed(tenants: Tenants) -> Table:
        table = Table("id", "tenant", "made", "bounds")
        for record in await tenants.keys():
            made = datetime.fromtimestamp(record.created_at, UTC).strftime("%Y-%m-%d %H:%M")
            bounds = tenant_settings(record).model_dump(exclude_defaults=True)
            table.add_row(record.id, record.tenant, made, json.dumps(bounds) if bounds else "")
        return table

    console.print(_with_tenants(config, listed))


@keys.command("revoke")
def revoke_key(key_id: str, config: Config = None) -> None:
    """Ends a key, at once and on every gateway of the store."""

    async def revoke(tenants: Tenants) -> bool:
        return await tenants.revoke(key_id)

    if not _with_tenants(config, revoke):
        raise ConfigError(f"There is no key {key_id}; `keys list` shows them.")
    console.print(f"Key {key_id} has ended.")


def _with_tenants(config: Path | None, work: Callable[[Tenants], Awaitable[T]]) -> T:
    settings = read_settings(config)

    async def opened(settings: GatewaySettings) -> T:
        store = open_keys(settings.store_url)
        await store.open()
        try:
            return await work(Tenants(store, settings))
        finally:
            await store.close()

    return asyncio.run(opened(settings))


def _bounds(values: dict[str, Any]) -> TenantSettings:
    from diffusion_gateway.tenants import parse_tenant_settings

    return parse_tenant_settings(values)


def _running(pid_file: Path) -> psutil.Process:
    """The gateway that noted its process there."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        if _lives(process) and "diffusion_gateway" in " ".join(process.cmdline()):
            return process
    except (OSError, ValueError, psutil.Error):
        pass
    raise ConfigError(f"No gateway is running that noted its process in {pid_file}.")


def _lives(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has asked for its end yet is a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Runs a command; what a person can put right ends in one sentence and exit code 1."""
    # Prompts and pictures are nobody else's on this machine.
    os.umask(0o077)
    try:
        app()
    except ServingError as error:
        Console(stderr=True, soft_wrap=True).print(
            error.message, style="red", markup=False, highlight=False
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
