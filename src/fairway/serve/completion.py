"""Completions, piece by piece: what the model writes, with what OpenAI tells of each token."""

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairway.artifact.loaded_model import LoadedModel
from fairway.generate import write_after
from fairway.generate.stops import StopFilter
from fairway.serve.reading import MOST_LIKELY, TextReader
from fairway.serve.request import CompletionRequest, Prompt
from fairway.tokens.tokenizer import piece_decoder


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


class TokenInfo(NamedTuple):
    """log_prob in nats; likely: (id, log_prob) of alternatives, likeliest first; offset: where its
    first character is in the text, in characters."""

    token: int
    data: bytes
    log_prob: float
    likely: tuple[tuple[int, float], ...]
    offset: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is new of one choice; the last one says why it ended, and how much it was."""

    index: int
    text: str = ""
    tokens: tuple[TokenInfo, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def complete(
    loaded: LoadedModel, reader: TextReader, request: CompletionRequest
) -> Iterator[Piece]:
    """All choices of a request, one after another. From one piece to the next one token is drawn,
    or one window is read."""
    for place, prompt in enumerate(request.prompts):
        ids = prompt_ids(loaded, prompt)
        for sample in range(request.n):
            index = place * request.n + sample
            yield from _Choice(loaded, request, ids, index).pieces(reader)


def prompt_ids(loaded: LoadedModel, prompt: Prompt) -> list[int]:
    """Opened by a BOS, as every document is; ids that begin with one have it already."""
    bos_id = loaded.model.config.bos_id
    if isinstance(prompt, str):
        return [bos_id, *loaded.tokenizer.encode(prompt.encode()).tolist()]
    return list(prompt) if prompt[:1] == (bos_id,) else [bos_id, *prompt]


class _Choice:
    """One continuation of one prompt, on its way."""

    def __init__(
        self, loaded: LoadedModel, request: CompletionRequest, ids: Sequence[int], index: int
    ) -> None:
        self.loaded, self.request, self.ids, self.index = loaded, request, ids, index
        self.config = request.config_of(index % request.n)
        self.decode = _Characters()
        self.places = _Characters()  # of tokens, which are known before their text may be shown
        self.number = 0  # tokens drawn
        self.shown = 0  # bytes
        self.held: deque[tuple[int, TokenInfo]] = deque()  # with where the bytes of each begin
        self.finish_reason = "length"

    def pieces(self, reader: TextReader) -> Iterator[Piece]:
        if self.request.echo:
            yield from self._echo(reader)
        yield from self._written()
        yield Piece(
            index=self.index,
            text=self.decode(b"", True),
            tokens=tuple(info for begin, info in self.held if begin < self.shown),  # in part
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.ids) - 1,
            completion_tokens=self.number,
        )

    def _echo(self, reader: TextReader) -> Iterator[Piece]:
        tokenizer, logprobs = self.loaded.tokenizer, self.request.logprobs
        if logprobs is None:
            text = self.decode(tokenizer.decode(self.ids))
            yield Piece(index=self.index, text=text)
            return
        add = piece_decoder(tokenizer, self.ids[:1])
        for window in reader.read(self.ids):
            tokens = []
            for read in window:
                data = add(read.token)
                likely = read.likely[:logprobs]
                tokens.append(
                    TokenInfo(read.token, data, read.log_prob, likely, self.places.before(data))
                )
            text = self.decode(b"".join(token.data for token in tokens))
            yield Piece(index=self.index, text=text, tokens=tuple(tokens))

    def _written(self) -> Iterator[Piece]:
        stops = StopFilter([stop.encode() for stop in self.config.stop])
        bos_id, size = self.loaded.model.config.bos_id, 0
        for written in write_after(self.loaded, self.ids, self.config):
            data, is_end = written.data, written.token == bos_id
            self.number += not is_end
            if self.request.logprobs is not None and not is_end:
                best = written.log_probs.topk(min(MOST_LIKELY, self.request.logprobs))
                likely = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                log_prob = float(written.log_probs[written.token])
                place = self.places.before(data)
                info = TokenInfo(written.token, data, log_prob, tuple(likely), place)
                self.held.append((size, info))
            size += len(data)
            yield self._piece(stops.push(data))
            if stops.found:
                break
        if stops.found or self.number < self.config.num_tokens:
            self.finish_reason = "stop"
        yield self._piece(stops.finish())

    def _piece(self, data: bytes) -> Piece:
        """Bytes that are certain now, with the tokens that they complete."""
        self.shown += len(data)
        tokens = []
        while self.held and self.held[0][0] + len(self.held[0][1].data) <= self.shown:
            tokens.append(self.held.popleft()[1])
        return Piece(index=self.index, text=self.decode(data), tokens=tuple(tokens))


class _Characters:
    """Bytes that come in pieces, as characters; U+FFFD for what is none."""

    def __init__(self) -> None:
        self._decoder = _utf8()
        self._number = 0

    def __call__(self, data: bytes, final: bool = False) -> str:
        text = self._decoder.decode(data, final)
        self._number += len(text)
        return text

    def before(self, data: bytes) -> int:
        """Characters before the first of `data`, which is added."""
        number = self._number
        self(data)
        if data and data[0] & 0xC0 == 0x80:  # goes on with the character that is open
            return number
        return self._number - len(_utf8().decode(data))
