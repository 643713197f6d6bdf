"""What a proof or a compressed file may ask of the machine that decodes it, and a model of the one
that scores with it.

Who runs an evaluation of their own may choose any numbers. A file that someone else made states its
numbers too, and they decide how much memory and time reading it takes; so they have limits, far
above whatever was found useful.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

MOST_TOKENS = 1 << 26  # of a text; the field's whole validation text has 62 million
MOST_WINDOWS = 1 << 21  # of an evaluation
# A bit may stand for any number of tokens that the model was sure of, so what a file asks for is
# held against its length: so many tokens and windows, which cost little memory, and so many more
# for each byte. Text that teaches a model anything comes to one or two tokens a byte.
FREE_TOKENS, TOKENS_PER_BYTE = 1 << 22, 64
FREE_WINDOWS, WINDOWS_PER_BYTE = 1 << 17, 2
MOST_ROWS = 1 << 12  # windows read in step
MOST_EVERY = 1 << 12  # tokens between two checkpoints, so that a text's length shows in the file's
MOST_THREADS = 256
MOST_FILE = 1 << 28  # bytes
SHA256 = re.compile(r"[0-9a-f]{64}")

# Of an evaluation's numbers, by the name of the field, in whichever config it stands.
RANGES: dict[str, tuple[float, float]] = {
    "context": (1, 1 << 20),
    "stride": (1, 1 << 20),
    "rows": (1, MOST_ROWS),
    "cached": (2, 1 << 12),
    "chunk_tokens": (1, 1 << 24),
    "epochs": (1, 1000),
    "steps": (1, 1000),
    "batch_sequences": (1, 1 << 16),
    "frozen_blocks": (0, 1 << 10),
    "lr": (0, 1e3),
    "orders": (0, 1 << 10),
    "fade": (1e-3, 1e9),
}
OTHERS = (-1e9, 1e9)
MOST_ITEMS = 1 << 12  # of any list in an evaluation: numbers of documents, patterns of names
MOST_ORDERS = 64


def check_evaluation(config: object) -> None:
    """ValueError where an evaluation from a file goes beyond its limits.

    config  of an evaluation, with whatever configs it holds
    """
    if not dataclasses.is_dataclass(config):
        raise TypeError(f"{type(config).__name__} is no config")
    for field in dataclasses.fields(config):
        _check_value(
            f"{type(config).__name__}.{field.name}", field.name, getattr(config, field.name)
        )


def _check_value(where: str, name: str, value: Any) -> None:
    if dataclasses.is_dataclass(value):
        check_evaluation(value)
    elif isinstance(value, tuple):
        most = MOST_ORDERS if name == "orders" else MOST_ITEMS
        if len(value) > most:
            raise ValueError(f"{where} lists {len(value):,} values; it may list {most:,}")
        for item in value:
            _check_value(where, name, item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES.get(name, OTHERS)
        if not low <= value <= high:
            raise ValueError(f"{where}={value!r:.40} must lie within {low:,} and {high:,}")


def check_coding(
    *,
    num_tokens: int,
    every: int,
    rows: int,
    threads: int,
    windows: int,
    checkpoints: int | None,
    file_bytes: int | None = None,
) -> None:
    """ValueError where decoding would take more than its limits, than its file is long enough for,
    or than its checkpoints speak for: their number follows from the text's length.

    num_tokens   of the stream, those that are given included
    every, rows  as in `WalkConfig`
    windows      of the plan, about
    checkpoints  how many the file holds; None while it is being made
    file_bytes   the file's length; None while it is not known
    """
    for name, value, low, high in (
        ("tokens", num_tokens, 1, MOST_TOKENS),
        ("tokens between checkpoints", every, 1, MOST_EVERY),
        ("rows", rows, 1, MOST_ROWS),
        ("threads", threads, 1, MOST_THREADS),
        ("windows", windows, 0, MOST_WINDOWS),
    ):
        if not low <= value <= high:
            raise ValueError(f"{value:,} {name}: it must be {low:,} to {high:,}")
    for name, value, free, per_byte in (
        ("tokens", num_tokens, FREE_TOKENS, TOKENS_PER_BYTE),
        ("windows", windows, FREE_WINDOWS, WINDOWS_PER_BYTE),
    ):
        if file_bytes is not None and value > free + per_byte * file_bytes:
            raise ValueError(
                f"{value:,} {name} in a file of {file_bytes:,} bytes, which may ask for "
                f"{free + per_byte * file_bytes:,}; code the text in parts"
            )
    if checkpoints is None:
        return
    # Rows come together, so one checkpoint may be as many tokens late as there are rows.
    most = (checkpoints + 1) * (every + rows) + rows
    if num_tokens > most or checkpoints > num_tokens // every + 1:
        raise ValueError(
            f"{checkpoints:,} checkpoints for {num_tokens:,} tokens, one after each {every:,}"
        )


def check_facts(sums: Mapping[str, str], circumstances: Mapping[str, str]) -> None:
    """ValueError for what is no sha256, and for circumstances that no message should repeat."""
    for name, value in sums.items():
        if not SHA256.fullmatch(value):
            raise ValueError(f"{name}={value!r:.80} is no sha256")
    for name, value in circumstances.items():
        if not (name + value).isprintable() or len(name + value) > 400 or len(circumstances) > 64:
            raise ValueError(
                f"{len(circumstances):,} circumstances, one {name!r:.40}={value!r:.40}"
            )
