"""The recipes by name, in one line each: what can be known of them without PyTorch.

A line is the first one of the recipe's docstring; a test keeps the two alike.
"""

from collections.abc import Iterable
from difflib import get_close_matches

SUMMARIES: dict[str, str] = {  # parents before their children
    "naive_baseline": "Nine blocks of width 512 over 1,024 pieces; rounded to eight bits.",
    "sota254": "Eleven blocks, MLP x3, context 2,048, bigram table and smearing, in six bits.",
    "sponge_bath": (
        "`sota254` scored with windows half as far apart. Its gain came from `ADAPTATION_390`."
    ),
    "pr414": (
        "Exclusive attention, partial rotary, damped reads, value embedding, EMA, searched clips."
    ),
    "pr691": "`pr414` with score-first SGD over chunks of 32,768 tokens, on slower machines.",
    "pr1394": (
        "8,192 pieces, MLP x4, layers 4-5 run twice more from half time on, clips by deviation."
    ),
    "pr1413": "`pr1394` with a QK gain of 5 and score-first SGD.",
    "pr1493": "`pr1413` with layers 3-5 looped from 35 % on, and parallel residuals from layer 7.",
    "pr1855": "Case marks in the pieces; adapters of rank 80 and three pauses at test time.",
    "pr1945": (
        "`pr1855` with one group of columns in eight bits (#1908) and two caps for scoring (#1923)."
    ),
    "pr1953": "`pr1945` scored with a context of 2,560, without adapters of queries and values.",
    "pr2014": (
        "`pr1953` trained on 1,024 to 3,072 tokens, small strides for short documents, one pause."
    ),
    "pr2135": (
        "`pr1855` with 32 batches of Hessians, no adapters of keys, one pause, a context of 2,560."
    ),
    "pocket": (
        "Four layers of width 192 over 2,048 pieces, with a bigram table and exclusive attention."
    ),
}
# Other names that the field has for them, taken wherever a recipe or a published script is named.
ALIASES = {"baseline": "naive_baseline", "pr254": "sota254", "pr390": "sponge_bath"}


def canonical(name: str, known: Iterable[str], what: str = "recipe") -> str:
    """The one name that the project writes, of whatever the user wrote.

    known  the names that will do here

    Raises ValueError with what was probably meant.

    >>> canonical("baseline", SUMMARIES), canonical("pr1413", SUMMARIES)
    ('naive_baseline', 'pr1413')
    """
    known, found = list(known), ALIASES.get(name, name)
    if found in known:
        return found
    close = get_close_matches(name, [*known, *ALIASES], n=1)
    hint = f"; did you mean {ALIASES.get(close[0], close[0])}?" if close else "."
    raise ValueError(f"unknown {what} {name!r}{hint} There are: {', '.join(known)}")
