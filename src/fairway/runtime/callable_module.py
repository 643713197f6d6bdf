"""A package that is also its main function: `fairway.audit(...)` beside `fairway.audit.run`."""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Let calling the imported module `name` call `function`; all else about it stays."""

    class CallableModule(ModuleType):
        __call__ = staticmethod(function)
        __signature__ = inspect.signature(function)  # what editors and notebooks show

    sys.modules[name].__class__ = CallableModule
