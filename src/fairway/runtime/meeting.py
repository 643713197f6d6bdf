"""Finding the peers of this very start in a store that may remember an earlier one.

torchrun's own store outlives a restart, with the addresses under which the last processes could be
reached; whoever reads those waits for the dead, or is refused. How often an agent has restarted its
workers is no help, for agents count apart. So the first rank numbers each attempt at random, and
all agree on it by names that they have just made up.
"""

import json
import time
import uuid
from typing import cast

import torch.distributed as dist

from fairway.runtime.watchdog import Store

POLL_SECONDS = 0.05


def agreed_store(store: dist.Store, rank: int, world_size: int, seconds: float) -> dist.Store:  # pyright: ignore[reportPrivateImportUsage]
    """A corner of `store` that only the processes which run now know of.

    Raises RuntimeError where some of them do not come in time.
    """
    meet = _first if rank == 0 else _another
    number = meet(cast(Store, store), rank, world_size, time.monotonic() + seconds)
    return dist.PrefixStore(f"fairway/{number}", store)  # pyright: ignore[reportPrivateImportUsage]


def _first(store: Store, rank: int, world_size: int, until: float) -> str:
    others = [str(other) for other in range(1, world_size)]
    names: dict[str, str] = {}
    number = ""
    while True:
        found = {other: _read(store, f"fairway/name/{other}") for other in others}
        if found != names and all(found.values()):  # some were left by processes that are gone
            names, number = found, uuid.uuid4().hex
            store.set("fairway/meeting", json.dumps({"number": number, "names": names}))
        agreed = {_read(store, f"fairway/agreed/{other}") for other in others}
        if number and agreed <= {number}:
            store.set("fairway/begun", number)
            return number
        _wait(until, f"{sum(map(bool, found.values()))} of {len(others)} others came")


def _another(store: Store, rank: int, world_size: int, until: float) -> str:
    me, agreed = uuid.uuid4().hex, ""
    store.set(f"fairway/name/{rank}", me)
    while True:
        meeting = json.loads(_read(store, "fairway/meeting") or '{"names": {}}')
        if meeting["names"].get(str(rank)) == me and meeting["number"] != agreed:
            agreed = meeting["number"]
            store.set(f"fairway/agreed/{rank}", agreed)
        if agreed and _read(store, "fairway/begun") == agreed:
            return agreed
        _wait(until, "the first rank did not come, or not all of the others")


def _read(store: Store, key: str) -> str:
    return store.multi_get([key])[0].decode() if store.check([key]) else ""


def _wait(until: float, missing: str) -> None:
    if time.monotonic() > until:
        raise RuntimeError(f"not all ranks met in time: {missing}")
    time.sleep(POLL_SECONDS)
