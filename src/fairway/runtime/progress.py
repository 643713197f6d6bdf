"""How a long call tells how far it has come: one callback, of one type, everywhere."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then by whatever takes long; every argument may be left out."""

    def __call__(
        self, done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float
    ) -> None:
        """
        done, total  of the work, in whatever unit the call counts it
        text         a line worth reading by people
        numbers      named figures worth keeping
        """
        ...


def silent(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
    """The `Progress` of a caller who does not want to know."""
