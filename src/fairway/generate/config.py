"""How much is written, and how: settings only, no PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How much is written, and how each next token is drawn.

    Attributes:
        num_tokens: largest number of tokens to add
        temperature: divides the logits: below 1 is safer, above 1 is wilder, and 0 always takes
            the likeliest token
        top_k: number of likeliest tokens to choose from; None chooses from all
        top_p: choose from the likeliest tokens that together have this probability (Holtzman et
            al. 2020); None chooses from all
        min_p: choose from tokens at least this share as likely as the likeliest (Nguyen et al.
            2024); None chooses from all
        repetition_penalty: logits of tokens that are there already are divided by it where
            positive, else multiplied (Keskar et al. 2019); 1 leaves them
        stop: texts before the first of which the writing ends
        seed: decides which tokens are drawn; the same seed writes the same text
        context: tokens the model reads at once; None reads as many as in training
    """

    num_tokens: int = 256
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf") or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"temperature={self.temperature}, top_k={self.top_k}: the temperature must be "
                "finite and not negative, and at least one token must be left to draw"
            )
        for name, share in {"top_p": self.top_p, "min_p": self.min_p}.items():
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name}={share} is a share: above 0 and at most 1")
        if not 1e-3 <= self.repetition_penalty <= 1e3:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty} must be from 0.001 to 1000; 1 is "
                "none"
            )
        if not -(1 << 63) <= self.seed < 1 << 63:
            raise ValueError(f"seed={self.seed} must be an integer of 64 bits")
        if isinstance(self.stop, str):
            raise ValueError(f"stop is several texts, in a tuple: stop=({self.stop!r},)")
        if "" in self.stop:
            raise ValueError("an empty stop text would end the writing before it begins")
        if self.num_tokens < 0 or (self.context is not None and self.context < 2):
            raise ValueError(
                f"num_tokens={self.num_tokens}, context={self.context}: needs 0 tokens or more, "
                "and a context of at least 2"
            )
