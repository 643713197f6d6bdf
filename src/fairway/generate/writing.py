"""A model that continues a text, token after token.

The model is read frozen, with cached keys and values; where the text outgrows the context, the
reading starts afresh from its newest half.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.artifact.loaded_model import LoadedModel
from fairway.generate.sampling import GenerateConfig, draw
from fairway.generate.stops import before_first
from fairway.model.decode_step import next_logits
from fairway.model.gpt import GPT
from fairway.tokens.tokenizer import piece_decoder


class Written(NamedTuple):
    """One token that a model wrote.

    log_probs  (V,) float32, nats: the model's own, before temperature and all else
    """

    token: int
    data: bytes
    log_probs: Tensor


def generate(
    loaded: LoadedModel, prompt: bytes, config: GenerateConfig | None = None
) -> Iterator[bytes]:
    """The bytes of one token after another, until the document ends, a stop text would come, or
    `num_tokens` have come.

    A token may be part of a character: join before decoding as UTF-8. The prompt is not repeated.
    """
    config = config or GenerateConfig()
    pieces = (written.data for written in write(loaded, prompt, config))
    return before_first(pieces, [stop.encode() for stop in config.stop])


def write(loaded: LoadedModel, prompt: bytes, config: GenerateConfig) -> Iterator[Written]:
    """The tokens themselves, with the distributions that they were drawn from; stop texts are the
    business of `generate`."""
    ids = [loaded.model.config.bos_id, *loaded.tokenizer.encode(prompt).tolist()]
    return write_after(loaded, ids, config)


def write_after(
    loaded: LoadedModel, ids: Sequence[int], config: GenerateConfig
) -> Iterator[Written]:
    """`write` after any ids of the model's, at least one.

    Where the document ends before all its bytes are out (CaseOps holds what may be the beginning of
    an operator), the BOS that ends it comes with them.
    """
    tokenizer, bos_id = loaded.tokenizer, loaded.model.config.bos_id
    source = torch.Generator().manual_seed(int(config.seed))
    context = config.context or loaded.model.config.train_context
    reading = _Reading(loaded.model, context, torch.tensor(ids))
    added = piece_decoder(tokenizer, ids)
    penalized = config.repetition_penalty != 1
    for left in reversed(range(config.num_tokens)):
        logits = reading.logits[: tokenizer.vocab_size]  # ids beyond it stand for no bytes
        seen = reading.tokens.tolist() if penalized else ()
        token = draw(logits, config, source, seen)
        log_probs = reading.logits.log_softmax(-1)
        if token == bos_id:
            if rest := added(None):
                yield Written(token, rest, log_probs)
            return
        yield Written(token, added(token) + (b"" if left else added(None)), log_probs)
        if left:
            reading.push(token)


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

    def _read(self, tokens: Tensor) -> None:
        device = self.model.embed.weight.device
        self.logits = next_logits(self.model, tokens[None].to(device), self.cache)[0].float().cpu()
