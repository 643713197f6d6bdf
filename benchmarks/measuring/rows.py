"""One measurement, one JSON line, with the machine it was made on."""

import functools
import json

Value = float | int | str
Row = dict[str, Value]


def show(name: str, **values: Value) -> Row:
    """Print a measurement; returns it without the machine."""
    row: Row = {"name": name, **values}
    print(json.dumps({**row, "machine": machine_name()}), flush=True)
    return row


@functools.cache
def machine_name() -> str:
    """Processor or GPU, cores and threads in a few words."""
    # Not above: the audited scorers of audit.py are loaded again and again, and need no torch.
    from fairway.runtime.device import machine

    here = machine()
    unit = ", ".join(here["gpus"]) or here["processor"]
    return f"{unit}, {here['cores']} cores, {here['threads']} threads, torch {here['torch']}"
