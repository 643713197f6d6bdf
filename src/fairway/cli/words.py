"""What a command line is made of: annotations that say how a parameter is written and shown."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

# Known by their place.
Model = Annotated[Path, Positional, arg(metavar="MODEL")]
Data = Annotated[Path, Positional, arg(metavar="DATA")]
RecipeName = Annotated[
    str,
    Positional,
    arg(
        metavar="RECIPE",
        help="a name (`fairway recipes`), the recipe.json of any run, or a function of your own "
        "that returns one: package.module:function or path/file.py:function",
    ),
]
PublishedName = Annotated[str, Positional, arg(metavar="NAME")]
InFile = Annotated[Path, Positional, arg(metavar="FILE")]
InFiles = Annotated[tuple[Path, ...], Positional, arg(metavar="FILE")]
Out = Annotated[Path, Positional, arg(metavar="OUT")]

# Options. One that may be absent is left out: `None` is no word for it.
File = Annotated[Path, arg(metavar="FILE")]
Sources = Annotated[tuple[Path, ...], arg(metavar="FILE")]
Files = Annotated[tuple[Path, ...], UseAppendAction, arg(metavar="FILE")]
Name = Annotated[str, arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], arg(metavar="NAME")]
Count = Annotated[int, arg(metavar="N")]
Counts = Annotated[tuple[int, ...], arg(metavar="N")]
Seconds = Annotated[float, arg(metavar="SECONDS")]
Settings = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="PATH=JSON")]
MaybeFile = Annotated[Path | None, arg(metavar="FILE")]
Folders = Annotated[tuple[Path, ...], arg(metavar="FOLDER")]
MaybeFolder = Annotated[Path | None, arg(metavar="FOLDER")]
MaybeName = Annotated[str | None, arg(metavar="NAME")]
MaybeCount = Annotated[int | None, arg(metavar="N")]
MaybeSeconds = Annotated[float | None, arg(metavar="SECONDS")]
MaybeFraction = Annotated[float | None, arg(metavar="SHARE")]
