"""What every `JobStore` is held to. A subclass provides the fixture `store`, open and empty."""

from __future__ import annotations

from contract_ends import EndContract
from contract_events import EventContract
from contract_keeping import KeepingContract
from contract_leases import LeaseContract
from contract_queue import QueueContract
from contract_upkeep import UpkeepContract
from contract_usage import UsageContract


class StoreContract(
    QueueContract,
    LeaseContract,
    EndContract,
    UpkeepContract,
    EventContract,
    KeepingContract,
    UsageContract,
):
    """All of the contract."""
