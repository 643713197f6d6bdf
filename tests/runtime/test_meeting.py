import threading
from pathlib import Path

import torch.distributed as dist

from fairway.runtime.meeting import agreed_store


def meet(folder: Path, world_size: int) -> set[bytes]:
    """What each of so many threads reads where all of them have written."""
    found: list[bytes] = []

    def one(rank: int) -> None:
        store = dist.FileStore(str(folder / "store"), -1)  # pyright: ignore[reportPrivateImportUsage]
        mine = agreed_store(store, rank, world_size, 20.0)
        found.append(str(mine.add("here", 1) > world_size).encode())  # pyright: ignore

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == world_size
    return set(found)


def test_a_later_start_reads_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    for world_size in (3, 3, 2, 4):
        assert meet(tmp_path, world_size) == {b"False"}
