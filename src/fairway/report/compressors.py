"""What general compressors make of the same text, so that a score has something beside it.

Alone, a compressor sees the validation text only. Primed, it has read training text first and only
the bytes that the validation text adds are counted, which is the fairer opponent of a model that
was trained. Neither counts the program. How the figures are shown is in `table.py`.
"""

import importlib
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from fairway.result import CompressorResult
from fairway.runtime.progress import Progress, silent

LIBRARIES = {"xz": "lzma", "zstd": "zstandard", "ppmd": "pyppmd"}  # compressor: module it needs
XZ_LEAST_DICTIONARY = 64 << 20  # bytes; what `xz -9` uses
PPMD_ORDER = 16
PPMD_CUT_OFF = 1  # a full model is pruned; the library's default forgets everything


@dataclass(frozen=True, kw_only=True)
class CompressorBudget:
    """How much text is compressed; of a larger corpus a part stands for the whole.

    prime_bytes  at most this much training text, its end, is read first
    val_bytes    at most this much validation text, its beginning, is compressed
    """

    prime_bytes: int = 8_000_000
    val_bytes: int = 4 << 20
    ppmd_memory_bytes: int = 256 << 20
    threads: int = 2

    def __post_init__(self) -> None:
        if min(self.prime_bytes, self.val_bytes, self.threads) < 1:
            raise ValueError(f"{self}: prime_bytes, val_bytes and threads must be at least 1")
        if not 1 << 20 <= self.ppmd_memory_bytes < 1 << 32:
            raise ValueError(
                f"ppmd_memory_bytes={self.ppmd_memory_bytes:,}; PPMd takes from 1,048,576 bytes to "
                f"just under 4 GiB"
            )


def require() -> None:
    """Raise ValueError naming every library that is missing, before any work is done.

    To be called when a run begins: a figure that is missing at its end is missing for good.
    """
    missing = {}
    for name, module in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing[name] = module
    if not missing:
        return
    installable = [module for module in missing.values() if module != "lzma"]
    mends = [f"run `pip install {' '.join(installable)}`"] if installable else []
    if "xz" in missing:
        mends.append("use a Python that was built with liblzma")
    raise ValueError(
        f"the compressors {', '.join(missing)} need {', '.join(missing.values())}, which this "
        f"Python lacks: {'; '.join(mends)}"
    )


def compare_with_compressors(
    train: bytes,
    val: bytes,
    budget: CompressorBudget | None = None,
    progress: Progress = silent,
) -> dict[str, CompressorResult]:
    """Bits per byte of validation text for each compressor of `LIBRARIES`.

    xz    `-9e`, with a dictionary that reaches back to the first byte
    zstd  `--ultra -22`, with a window as long; primed by the training text as a raw dictionary
    ppmd  PPMd variant I, order 16
    """
    budget = budget or CompressorBudget()
    require()
    if not train or not val:
        raise ValueError(
            f"compressors need text on both sides; got {len(train):,} bytes to read first and "
            f"{len(val):,} bytes to compress"
        )
    prime, scored = train[-budget.prime_bytes :], val[: budget.val_bytes]
    both = prime + scored
    ppmd = partial(ppmd_size, memory_bytes=budget.ppmd_memory_bytes)
    jobs: dict[tuple[str, str], Callable[[], int]] = {  # the longest first: they end together
        ("xz", "both"): partial(xz_size, both),
        ("ppmd", "both"): partial(ppmd, both),
        ("xz", "prime"): partial(xz_size, prime),
        ("ppmd", "prime"): partial(ppmd, prime),
        ("zstd", "primed"): partial(zstd_size, scored, prime=prime),
        ("xz", "alone"): partial(xz_size, scored),
        ("zstd", "alone"): partial(zstd_size, scored),
        ("ppmd", "alone"): partial(ppmd, scored),
    }
    sizes = _in_parallel(jobs, budget.threads, progress)
    # xz and PPMd take no dictionary; what the text adds to a longer stream is the same thing.
    for name in ("xz", "ppmd"):
        sizes[name, "primed"] = sizes[name, "both"] - sizes[name, "prime"]
    return {
        name: CompressorResult(
            alone=8 * sizes[name, "alone"] / len(scored),
            primed=8 * sizes[name, "primed"] / len(scored),
            prime_bytes=len(prime),
            train_bytes=len(train),
            scored_bytes=len(scored),
            val_bytes=len(val),
        )
        for name in LIBRARIES
    }


def xz_size(data: bytes) -> int:
    """Bytes of the .xz file."""
    chain = {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": max(XZ_LEAST_DICTIONARY, len(data)),
    }
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=[chain]))


def zstd_size(data: bytes, *, prime: bytes = b"") -> int:
    """Bytes of the zstd frame, for a reader who has `prime`."""
    import zstandard  # so that `require` can name it where it is missing

    total = len(data) + len(prime)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        22,
        source_size=total,
        dict_size=len(prime),
        window_log=min(max(27, total.bit_length()), zstandard.WINDOWLOG_MAX),
        enable_ldm=True,
    )
    dictionary = (
        zstandard.ZstdCompressionDict(prime, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if prime
        else None
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
    return len(compressor.compress(data))


def ppmd_size(data: bytes, *, memory_bytes: int = 256 << 20) -> int:
    """Bytes of the PPMd stream."""
    import pyppmd  # so that `require` can name it where it is missing

    encoder = pyppmd.Ppmd8Encoder(PPMD_ORDER, memory_bytes, PPMD_CUT_OFF)
    return len(encoder.encode(data)) + len(encoder.flush())


def _in_parallel(
    jobs: dict[tuple[str, str], Callable[[], int]], threads: int, progress: Progress
) -> dict[tuple[str, str], int]:
    """The libraries let go of the interpreter while they work, so threads are enough."""
    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(job): key for key, job in jobs.items()}
        for done, _ in enumerate(as_completed(running), start=1):
            progress(done, len(jobs))
        return {key: future.result() for future, key in running.items()}
