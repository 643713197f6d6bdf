"""How many of a text's documents can be encoded and decoded in a time, as a trial says."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from fairway.evaluate.fitting import RESERVE, most
from fairway.proof.certificate import Certificate
from fairway.tokens.val_text import ValText

TRIAL = 256  # targets, proved beforehand to see how fast this machine is


def first_provable(
    prove: Callable[[int, Path], Certificate], text: ValText, seconds: float
) -> ValText:
    """The text, or its first documents, which can be proved in so many seconds.

    prove  of so many targets, into a file

    Raises ValueError where not even the first document can.
    """
    with tempfile.TemporaryDirectory() as folder:
        tried = prove(min(TRIAL, text.num_targets), Path(folder) / "trial.fwp")
    rate = (tried.encode_seconds + tried.decode_seconds) / tried.num_tokens
    room = seconds * (1.0 - RESERVE)

    def fits(documents: int) -> bool:
        return rate * text.leading(documents).num_targets <= room

    number = most(len(text.document_starts), fits)
    if not number:
        needed = rate * text.leading(1).num_targets / (1.0 - RESERVE)
        raise ValueError(
            f"not even the first document can be proved in {seconds:.0f} s, but in {needed:.0f} s; "
            f"allow that much, or choose fewer --tokens"
        )
    return text.leading(number, f"all that can be proved in {seconds:.0f} s")
