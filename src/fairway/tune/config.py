"""How long a search goes on, and on how much text: settings only, no PyTorch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How long to search, and on how much text."""

    # seconds for the whole search, the trial of the present settings included
    seconds: float = 300.0
    trials: int | None = None  # largest number of trials; None: as many as time allows
    tokens: int = 20_000  # number of tokens of held-out training text, in whole documents
    # what is found must evaluate `eval_tokens` tokens in so many seconds; None: no limit
    eval_seconds: float | None = None
    # number of tokens that `eval_seconds` is meant for; None: no limit
    eval_tokens: int | None = None
    # decides which settings are tried; the same seed tries the same ones, unless there is a journal
    seed: int = 0
    journal: Path | None = None  # file through which several processes share one search

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.tokens < 2 or (self.trials is not None and self.trials < 1):
            raise ValueError(
                f"seconds={self.seconds}, tokens={self.tokens}, trials={self.trials}: all must be "
                "positive, and two tokens are the least that can be scored"
            )
        if (self.eval_seconds is None) != (self.eval_tokens is None):
            raise ValueError("eval_seconds and eval_tokens say one thing together: give both")
