"""C++ of ours, compiled where it runs: a faster form of plain Python, which stays beside it.

A source is compiled once for a machine and kept in the user's cache folder; the library's name is
a hash of all that it depends on, so what is there is never stale. Where no compiler is found or it
fails, callers take their plain form, and `explain` says why.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "native"
COMPILERS = ("c++", "g++", "clang++")
# No contraction: a product and a sum are rounded apart, as Python rounds them.
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-ffp-contract=off")
TUNED = (
    *("-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
COMPILE_SECONDS = 120
INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.MULTILINE)

_switched_off = _untuned = False


class CannotCompile(Exception):
    """Says what is missing, in one line."""


@contextmanager
def switched_off() -> Iterator[None]:
    """Plain forms alone, for whatever chooses its form meanwhile: the two are compared by this."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


@contextmanager
def untuned() -> Iterator[None]:
    """Without what rounds differently than the plain forms, for whoever repeats their numbers."""
    global _untuned
    before, _untuned = _untuned, True
    try:
        yield
    finally:
        _untuned = before


def library(name: str, *, tuned: bool = False) -> ctypes.CDLL | None:
    """The functions of `native/NAME.cpp`; None where they cannot be had, see `explain`.

    tuned  for this very processor, with rounding that may differ from another's
    """
    if _switched_off or (tuned and _untuned):
        return None
    loaded = _load(name, tuned)
    return loaded if isinstance(loaded, ctypes.CDLL) else None


def explain(*names: str, tuned: bool = False) -> str:
    """Which of these run as compiled C++, and why others do not."""
    said = []
    for name in names:
        loaded = _load(name, tuned)
        if isinstance(loaded, ctypes.CDLL):
            loaded = "not asked for" if library(name, tuned=tuned) is None else ""
        said.append(f"{name}: {f'plain Python ({loaded})' if loaded else 'compiled C++'}")
    return "; ".join(said)


def identity(name: str, *, tuned: bool = False) -> str:
    """What tells the compiled form from those of other sources, compilers and processors; "" for
    none."""
    found = library(name, tuned=tuned)
    return "" if found is None else Path(found._name).stem.rpartition("-")[2]


@functools.cache
def _load(name: str, tuned: bool) -> "ctypes.CDLL | str":
    """The library, or why there is none."""
    try:
        return ctypes.CDLL(str(_compiled(name, source_of(name), tuned)))
    except (CannotCompile, OSError) as error:
        return str(error)


def source_of(name: str, suffix: str = ".cpp") -> str:
    """The text of `native/NAME.cpp`, with that of each header of ours it asks for in its place."""
    text = (SOURCES / f"{name}{suffix}").read_text(encoding="utf-8")
    return INCLUDE.sub(lambda found: source_of(found[1], ".h"), text)


def _compiled(name: str, source: str, tuned: bool) -> Path:
    """The shared library of a source, compiled now unless it was before."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotCompile(f"no C++ compiler; install one of {', '.join(COMPILERS)}")
    flags = (*FLAGS, *(TUNED if tuned else ()))
    made_of = (source, compiler, _version(compiler), flags, _machine(tuned))
    file = f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.so"
    for folder in _folders():
        path = folder / file
        if path.is_file():
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _compile(compiler, flags, name, source, path)
        except PermissionError:
            continue  # a home that cannot be written to
        except OSError as error:
            raise CannotCompile(f"{path}: {error}") from error
    raise CannotCompile("no folder to keep a compiled library in")


def _compile(compiler: str, flags: tuple[str, ...], name: str, source: str, path: Path) -> Path:
    """Whole or not there: other processes may be compiling the same."""
    handle, partial = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        done = subprocess.run(
            [compiler, *flags, "-x", "c++", "-", "-o", partial],
            input=source,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
            raise CannotCompile(f"{compiler} failed on {name}.cpp: {said:.200}")
        Path(partial).replace(path)
    except subprocess.TimeoutExpired as error:
        raise CannotCompile(f"{compiler} took over {COMPILE_SECONDS} s") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return path


def _folders() -> list[Path]:
    """Where compiled libraries may be kept, the best first."""
    home = Path(os.path.expanduser("~")) / ".cache"
    mine = Path(tempfile.gettempdir()) / f"fairway-{os.getuid()}"
    return [home / "fairway" / "native", mine]


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _machine(tuned: bool) -> str:
    """What decides whether a library runs here: a tuned one needs this processor's instructions."""
    processor = ""
    if tuned and Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()} {platform.machine()} {processor}"
