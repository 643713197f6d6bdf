"""Where a run happens: decided once, and told in the log of its folder."""

import json
from pathlib import Path

import torch

from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import LOG, Runtime, runtime_for


def test_a_folder_gets_its_log_and_a_new_run_a_new_one(tmp_path: Path) -> None:
    for resume, num_lines in ((False, 1), (False, 1), (True, 2)):
        with runtime_for(tmp_path / "run", device="cpu", resume=resume, quiet=True) as runtime:
            assert runtime.device.type == "cpu"
            runtime.log.say("here")
        lines = (tmp_path / "run" / LOG).read_text().splitlines()
        assert [json.loads(line)["text"] for line in lines] == ["here"] * num_lines


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
