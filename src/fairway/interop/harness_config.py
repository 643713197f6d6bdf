"""What lm-evaluation-harness is to ask a model."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class HarnessConfig:
    """What is asked.

    Attributes:
        tasks: names of tasks, or files of them
        include_path: folder with tasks of your own
        num_fewshot: examples before each question; otherwise as many as the task says
        limit: number of documents of each task; otherwise all
        learn: learn from what was already scored of the same document, as the model file says
        stride: tokens that a window scores; otherwise as the model file says
    """

    tasks: tuple[str, ...] = ()
    include_path: Path | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    learn: bool = False
    stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be positive")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ValueError(f"num_fewshot={self.num_fewshot} must not be negative")
