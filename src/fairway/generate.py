"""Let a model write: a prompt in, bytes out as they come.

The model is read frozen, with cached keys and values; where the text outgrows the context, the
reading starts afresh from its newest half.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fairway.artifact.loaded_model import LoadedModel
from fairway.model.gpt import GPT


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How the next token is drawn.

    temperature  0 takes the likeliest token, 1 draws from the model's own distribution
    top_k        draw among the k likeliest only; None: among all
    context      tokens the model reads at once; None: as many as in training
    """

    num_tokens: int = 256
    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"temperature={self.temperature}, top_k={self.top_k}: the temperature must not "
                "be negative, and at least one token must be left to draw"
            )
        if self.num_tokens < 0 or (self.context is not None and self.context < 2):
            raise ValueError(
                f"num_tokens={self.num_tokens}, context={self.context}: needs 0 tokens or more, "
                "and a context of at least 2"
            )


def generate(
    loaded: LoadedModel, prompt: bytes, config: GenerateConfig | None = None
) -> Iterator[bytes]:
    """The bytes of one token after another, until the document ends or `num_tokens` have come.

    A token may be part of a character: join before decoding as UTF-8. The prompt is not repeated.
    """
    config = config or GenerateConfig()
    tokenizer, bos_id = loaded.tokenizer, loaded.model.config.bos_id
    ids = torch.tensor([bos_id, *tokenizer.encode(prompt).tolist()])
    source = torch.Generator().manual_seed(config.seed)
    reading = _Reading(loaded.model, config.context or loaded.model.config.train_context, ids)
    for _ in range(config.num_tokens):
        token = draw(reading.logits, config.temperature, config.top_k, source)
        if token == bos_id:
            return
        yield tokenizer.decode([token])
        reading.push(token)


def draw(logits: Tensor, temperature: float, top_k: int | None, source: torch.Generator) -> int:
    """An id, given logits (V,); see `GenerateConfig`."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=source))


class _Reading:
    """The end of a growing text, as the model sees it."""

    def __init__(self, model: GPT, context: int, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self.cache = model.new_cache(1, context)
        self._read(tokens[-context:])

    def push(self, token: int) -> None:
        new = torch.tensor([token])
        self.tokens = torch.cat((self.tokens, new))
        if self.cache.length == self.cache.context:
            self.cache.clear()
            new = self.tokens[-(self.cache.context // 2) :]
        self._read(new)

    @torch.inference_mode()
    def _read(self, tokens: Tensor) -> None:
        device = self.model.embed.weight.device
        logits = self.model(tokens[None].to(device), start=len(tokens) - 1, cache=self.cache)
        self.logits = logits[0, -1].cpu()
