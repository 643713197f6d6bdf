"""What a run settled, and so what decides its script."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from fairway.evaluate.config import EvaluateConfig
from fairway.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settled:
    """All that decides a script.

    header         of the artifact, see `packing.header_of`
    compute_dtype  of training, and whether it runs through `torch.compile`
    device         kind of device it ran on: on another the script scores, only slower
    tokenizer      kind of the text's tokenizer, and the transform before it
    """

    recipe: Recipe
    evaluate: EvaluateConfig
    header: dict[str, Any]
    compute_dtype: str
    compiled: bool
    device: Literal["cpu", "cuda"]
    tokenizer: str
    transform: str | None

    def frozen(self) -> Recipe:
        """The recipe as the script holds it: evaluated as planned, and without what only reports
        read. Whatever the seed, the bytes are the same."""
        return replace(
            self.recipe,
            evaluate=self.evaluate,
            evaluate_range=None,
            diagnostic=None,
            claim_bpb=None,
            parent=None,
            pull_request=None,
            seed=0,
        )
