"""A kind of file that fairway reads, with a true file of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A folder whose file `name` is to be damaged.

    read    takes the folder; what it returns tells two readings apart
    unique  whether no other file than this one may be accepted: a proof fixes the text it decodes
            to, while any weights are a model
    """

    kind: str
    folder: Path
    name: str
    read: Callable[[Path], str]
    unique: bool = False

    @property
    def data(self) -> bytes:
        return (self.folder / self.name).read_bytes()
