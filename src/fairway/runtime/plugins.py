"""Classes and functions from the user's own package: loaded when the user names them, never
because a file does.

A plug-in is named `package.module:Name`, or by the name of an entry point of the group
`fairway.plugins`. Files only record which plug-ins they need (`Plugin`); to read such a file the
user names them again, with `--plugin` or `load_plugin`.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUP = "fairway.plugins"


class Pluggable:
    """Base of config classes of which users may bring their own.

    A field that may hold one lists those we ship and then the base, `Sgd | Learner | None`: the
    list is the table of names, the base opens it.
    """


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What a file records of a plug-in that it needs.

    name     `package.module:Name`
    version  of the distribution it came with; "" where it is no part of one
    sha256   of its source file, in hexadecimal; "" where it has none
    """

    name: str
    version: str
    sha256: str


_loaded: dict[str, Any] = {}  # by full name; what the user named in this process
_given: dict[str, str] = {}  # full name: what the user typed


def load_plugin(spec: str) -> Any:
    """The class or function of that name, which files may refer to from now on.

    spec  `package.module:Name`, `path/file.py:Name`, whose full name is then `file:Name`, or an
          entry point of the group `fairway.plugins`

    Raises ValueError naming what is missing.
    """
    name = _full_name(spec)
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's own file, beside which the command was given
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ValueError(f"plug-in {spec!r}: cannot import {module_name} ({error})") from error
    except AttributeError:
        raise ValueError(f"plug-in {spec!r}: {module_name} has no {attribute!r}") from None
    _loaded[name], _given[name] = found, spec
    return found


def plugin_arguments() -> list[str]:
    """The command line's words that load the same plug-ins in another process."""
    return [word for spec in _given.values() for word in ("--plugin", spec)]


def plugin_class(name: str, base: type) -> type:
    """The loaded class of that full name, for a field that takes a `base`.

    Raises ValueError that tells how to load it; nothing is imported here.
    """
    if name not in _loaded:
        raise ValueError(
            f"it needs the plug-in {name!r}; if you trust it, name it: --plugin {name}"
        )
    found = _loaded[name]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"plug-in {name!r} is no {base.__name__}")
    return found


def is_plugin(cls: type) -> bool:
    return not cls.__module__.startswith("fairway.")


def plugin_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def describe_plugin(cls: type) -> Plugin:
    """What is recorded of a class from outside this package."""
    path = inspect.getsourcefile(cls)
    source = Path(path).read_bytes() if path else b""
    package = cls.__module__.partition(".")[0]
    owners = importlib.metadata.packages_distributions().get(package, [])
    version = importlib.metadata.version(owners[0]) if owners else ""
    return Plugin(
        name=plugin_name(cls),
        version=version,
        sha256=hashlib.sha256(source).hexdigest() if source else "",
    )


def check_recorded(recorded: Plugin) -> str | None:
    """What differs between a recorded plug-in and the one that is loaded, or None."""
    if recorded.name not in _loaded:
        return None  # whoever needs it says so
    now = describe_plugin(_loaded[recorded.name])
    if now.sha256 == recorded.sha256:
        return None
    return (
        f"plug-in {now.name} is not the one this was made with: version "
        f"{now.version or 'unknown'} ({now.sha256[:12]}) instead of "
        f"{recorded.version or 'unknown'} ({recorded.sha256[:12]})"
    )


def _full_name(spec: str) -> str:
    file, _, attribute = spec.rpartition(":")
    if file.endswith(".py"):
        return f"{_module_of(Path(file).resolve())}:{attribute}"
    if ":" in spec:
        return spec
    points = {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    if spec not in points:
        known = f"; installed are {', '.join(sorted(points))}" if points else ""
        raise ValueError(
            f"plug-in {spec!r}: name it package.module:Name, or by an entry point of the group "
            f"{GROUP}{known}"
        )
    return points[spec]


def _module_of(file: Path) -> str:
    """The name under which a file of Python can be imported from now on."""
    if not file.is_file():
        raise ValueError(f"plug-in: there is no file {file}")
    if file.stem not in sys.modules:
        found = importlib.util.spec_from_file_location(file.stem, file)
        assert found is not None
        assert found.loader is not None
        sys.modules[file.stem] = module = importlib.util.module_from_spec(found)
        sys.path.append(str(file.parent))  # where it may have a neighbour that it imports
        found.loader.exec_module(module)
    elif Path(sys.modules[file.stem].__file__ or "").resolve() != file:
        raise ValueError(f"plug-in {file}: a module named {file.stem!r} is there; rename the file")
    return file.stem
