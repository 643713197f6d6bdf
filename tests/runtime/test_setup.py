"""Where a run happens: decided once, and told in the log of its folder."""

from pathlib import Path

import torch

from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime, runtime_for


def test_a_run_gets_device_ears_and_a_log_that_has_no_file_yet(tmp_path: Path) -> None:
    with runtime_for(device="cpu", quiet=True) as runtime:
        assert runtime.device.type == "cpu"
        assert not runtime.stop.asked
        runtime.log.say("here")
    assert not list(tmp_path.iterdir())


def test_the_number_type_is_measured_and_its_reason_told() -> None:
    told: list[str] = []

    def progress(done: float = 0, total: float = 0, *, text: str = "", **numbers: float) -> None:
        told.append(text)

    log = RunLog(quiet=True, progress=progress)
    runtime = Runtime(torch.device("cpu"), log=log).measured(compiled=True)
    assert runtime.compiled
    (line,) = told
    dtype = str(runtime.compute_dtype).removeprefix("torch.")
    assert line.startswith(f"training in {dtype} on cpu through torch.compile: ")


def test_the_first_process_goes_on_alone_and_no_other_does() -> None:
    first = Runtime(torch.device("cpu"), log=RunLog(quiet=True))
    alone = first.alone()
    assert alone is not None
    assert alone.ranks.world_size == 1
    other = Runtime(torch.device("cpu"), ranks=Ranks(1, 2), log=RunLog(quiet=True))
    assert other.alone() is None
