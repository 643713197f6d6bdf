"""Let a model write: a prompt in, bytes out as they come."""

from typing import TYPE_CHECKING, Any

from fairway.generate.config import GenerateConfig

if TYPE_CHECKING:
    from fairway.generate.writing import Written, generate, write, write_after

__all__ = ["GenerateConfig", "Written", "generate", "write", "write_after"]


def __getattr__(name: str) -> Any:  # settings alone cost no PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fairway.generate import writing

    return getattr(writing, name)
