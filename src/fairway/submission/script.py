"""The one file that is handed in: what trains, packs and scores one recipe, packed into itself.

As the field packs its scripts: minified source, LZMA, base 85, and two lines that undo it. The same
recipe gives the same bytes. What goes in is said in `program.py`, what is left away in
`simplify.py`, `fold.py` and `known.py`.
"""

import ast
import base64
import hashlib
import lzma
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from fairway.runtime.files import atomic_write
from fairway.runtime.limits import one_line
from fairway.submission.flat import flatten
from fairway.submission.fold import Folder
from fairway.submission.frozen import classes_in, expression
from fairway.submission.known import facts_of
from fairway.submission.program import Program
from fairway.submission.settled import Settled
from fairway.submission.simplify import Simplifier

SCRIPT = "train_gpt.py"
ENTRY = "fairway.pipeline.shipped"
FILTERS: tuple[Mapping[str, int], ...] = (
    {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 20,
        "lc": 3,
        "lp": 0,
        "pb": 0,
    },
)
HEAD = "import lzma,base64\nexec(lzma.decompress(base64.b85decode('"
TAIL = "')))\n"
MOST_SOURCE = 1 << 22  # bytes that a packed script may unpack to


def make_script(settled: Settled) -> bytes:
    """The script as it is handed in; kept in the user's cache folder, for minifying takes seconds.

    Raises ValueError for a recipe that holds plug-ins.
    """
    made_of = (
        _entry(settled),
        settled.device,
        settled.tokenizer,
        settled.transform,
        _package_sha256(),
    )
    made_of += (platform.python_version(), version("python-minifier"))
    name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]
    kept = Path.home() / ".cache" / "fairway" / "scripts" / f"{name}.py"
    if kept.is_file():
        return kept.read_bytes()
    script = pack_source(minified(readable_source(settled)))
    with suppress(OSError):  # a home that cannot be written to costs seconds, no more
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(kept, script)
    return script


def readable_source(settled: Settled) -> str:
    """The script before it is minified: all that the recipe needs, in one namespace."""
    facts = facts_of(settled)

    def simplify(module: str, tree: ast.Module) -> ast.Module:
        configs = facts.configs.get(module, frozenset())
        simple = Simplifier(module, configs, says=module == ENTRY).visit(tree)
        return Folder(facts, module).visit(simple)

    program = Program(
        _entry(settled), left_out=facts.left_out, unused=facts.unused, simplify=simplify
    )
    return ast.unparse(flatten(program.modules(), sorted(program.stubs)))


def minified(source: str) -> str:
    import python_minifier  # a tenth of a second, and only where a script is made

    return python_minifier.minify(source, hoist_literals=False, rename_globals=True)


def pack_source(source: str) -> bytes:
    data = lzma.compress(source.encode(), format=lzma.FORMAT_ALONE, filters=list(FILTERS))
    return f"{HEAD}{base64.b85encode(data).decode()}{TAIL}".encode()


def unpack_script(script: bytes) -> str:
    """The source that a script unpacks; ValueError where it is none of ours. Nothing is run."""
    text = script.decode("ascii", "replace")
    if not (text.startswith(HEAD) and text.endswith(TAIL)):
        raise ValueError("it is no script that `fairway submit` packed")
    try:
        packed = base64.b85decode(text[len(HEAD) : -len(TAIL)])
        stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=1 << 27)
        source = stream.decompress(packed, MOST_SOURCE)
        if not stream.eof or stream.unused_data:
            raise ValueError("it is cut off, too long, or followed by something")
        return source.decode()
    except (ValueError, lzma.LZMAError) as error:
        raise ValueError(f"it does not unpack: {one_line(error)}") from error


def _entry(settled: Settled) -> str:
    """The last lines of the script, which begin everything."""
    recipe = settled.frozen()
    imports = {f"from {cls.__module__} import {cls.__name__}" for cls in classes_in(recipe)}
    return "\n".join(
        [
            *sorted(imports),
            f"from {ENTRY} import Frozen, main",
            "from pathlib import Path",
            f"main(Frozen(recipe={expression(recipe)}, header={expression(settled.header)}, "
            f"compute_dtype={settled.compute_dtype!r}, compiled={settled.compiled}), "
            f"Path(__file__))",
        ]
    )


@cache
def _package_sha256() -> str:
    """Of every source file that might go in."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
