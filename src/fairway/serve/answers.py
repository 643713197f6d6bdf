"""Pieces of completions as OpenAI's JSON: one object, or one after another in a stream."""

import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from fairway.serve.completion import Piece, TokenInfo
from fairway.serve.request import CompletionRequest
from fairway.tokens.tokenizer import Tokenizer

Json = dict[str, Any]


class Answer:
    """What all parts of one answer have in common."""

    def __init__(self, request: CompletionRequest, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.request, self.tokenizer = request, tokenizer
        self.common: Json = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": fingerprint,
        }

    async def whole(self, pieces: AsyncIterator[Piece]) -> Json:
        """One object with all choices."""
        choices: dict[int, list[Piece]] = {}
        async for piece in pieces:
            choices.setdefault(piece.index, []).append(piece)
        joined = [self._choice(index, parts) for index, parts in choices.items()]
        ends = [parts[-1] for parts in choices.values()]
        return self.common | {"choices": joined, "usage": self._usage(ends)}

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Json]:
        """One object for each piece of text; the numbers of tokens at the end, if asked for."""
        ends: list[Piece] = []
        empty: Json = {"usage": None} if self.request.usage else {}
        async for piece in pieces:
            if piece.finish_reason is not None:
                ends.append(piece)
            elif not piece.text and not piece.tokens:
                continue
            yield self.common | {"choices": [self._choice(piece.index, [piece])]} | empty
        if self.request.usage:
            yield self.common | {"choices": [], "usage": self._usage(ends)}

    def _choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        tokens = [token for piece in pieces for token in piece.tokens]
        return {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": None if self.request.logprobs is None else self._logprobs(tokens),
            "finish_reason": pieces[-1].finish_reason,
        }

    def _logprobs(self, tokens: Sequence[TokenInfo]) -> Json:
        alternatives = [self._top(token) for token in tokens] if self.request.logprobs else None
        return {
            "tokens": [spelled(token.data) for token in tokens],
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": alternatives,
            "text_offset": [token.offset for token in tokens],
        }

    def _top(self, token: TokenInfo) -> dict[str, float]:
        """Alternatives; of two that are spelled alike, the likelier."""
        found: dict[str, float] = {}
        for other, log_prob in token.likely:
            known = other < self.tokenizer.vocab_size
            name = spelled(self.tokenizer.decode([other])) if known else f"<id {other}>"
            found.setdefault(name, log_prob)
        return found

    def _usage(self, ends: Iterable[Piece]) -> Json:
        """Prompts are counted once, however many completions each has."""
        ends = list(ends)
        prompt = sum(end.prompt_tokens for end in ends if end.index % self.request.n == 0)
        written = sum(end.completion_tokens for end in ends)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }


def spelled(data: bytes) -> str:
    r"""A token as OpenAI writes it: its text, or its bytes where it is none by itself.

    >>> spelled(b" the"), spelled(b"\xc3")
    (' the', 'bytes:\\xc3')
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
