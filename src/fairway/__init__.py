"""Byte-budgeted language models: train, pack, score, prove by decoding, audit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairway.runtime.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from fairway.api.model import Model, load
    from fairway.api.run import run
    from fairway.api.text_score import TextScore
    from fairway.audit.run import run_audit as audit
    from fairway.prepare.corpus import prepare
    from fairway.recipes.registry import recipe

# Where each name lives; "" is a package that can be called. Nothing is imported before it is used,
# because PyTorch takes seconds.
_PLACES = {
    "Model": "fairway.api.model",
    "TextScore": "fairway.api.text_score",
    "audit": "",
    "load": "fairway.api.model",
    "prepare": "",
    "recipe": "fairway.recipes.registry",
    "run": "fairway.api.run",
}

__all__ = ["Model", "TextScore", "__version__", "audit", "load", "prepare", "recipe", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fairway' has no attribute {name!r}; see dir(fairway)")
    place = _PLACES[name]
    return getattr(import_module(place), name) if place else import_module(f"fairway.{name}")


def __dir__() -> list[str]:
    return __all__
