"""A text in spans of whole characters, each with its bits: what the page colours."""

import codecs
import math
from collections.abc import Iterator
from typing import Any

from fairway.artifact.loaded_model import LoadedModel
from fairway.serve.errors import ApiError
from fairway.serve.reading import ReadToken, TextReader
from fairway.tokens.tokenizer import Tokenizer, piece_decoder
from fairway.tokens.val_text import ValText


def score_text(
    loaded: LoadedModel, reader: TextReader, text: str
) -> Iterator[dict[str, Any] | None]:
    """None after each window that was read, and at last what the page is sent.

    Raises ApiError for what is no text.
    """
    try:
        document = text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, f"half a character at {error.start}", param="text") from error
    val = ValText.of_documents([document], loaded.tokenizer)
    read: list[ReadToken] = []
    for window in reader.read(val.tokens.tolist()):
        read.extend(window)
        yield None
    spans = list(_spans(read, loaded.tokenizer, loaded.model.config.bos_id))
    bits = math.fsum(-token.log_prob for token in read) / math.log(2)
    num_bytes = int(val.target_bytes.sum())
    yield {
        "bits": bits,
        "bytes": num_bytes,
        "tokens": len(read),
        "bits_per_byte": bits / num_bytes if num_bytes else None,
        "exact": "".join(span["text"] for span in spans) == text,
        "spans": spans,
    }


def _spans(read: list[ReadToken], tokenizer: Tokenizer, bos_id: int) -> Iterator[dict[str, Any]]:
    """Tokens, joined where a character or the bytes of an operator go over their edges."""
    add, decoder = piece_decoder(tokenizer), codecs.getincrementaldecoder("utf-8")("replace")
    span: dict[str, Any] = {}
    for place, token in enumerate(read):
        last = place == len(read) - 1
        data = add(token.token) + (add(None) if last else b"")
        if not span:
            likely = [(_name(tokenizer, other, bos_id), log) for other, log in token.likely]
            span = {"text": "", "bits": 0.0, "bytes": 0, "likely": likely}
        span["text"] += decoder.decode(data, last)
        span["bits"] -= token.log_prob / math.log(2)
        span["bytes"] += len(data)
        if (span["text"] and not decoder.getstate()[0]) or last:
            yield span
            span = {}


def _name(tokenizer: Tokenizer, token: int, bos_id: int) -> str:
    if token == bos_id:
        return "the end"
    known = token < tokenizer.vocab_size
    return tokenizer.decode([token]).decode("utf-8", "replace") if known else f"id {token}"
