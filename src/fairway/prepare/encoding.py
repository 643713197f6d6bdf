"""Documents to token ids on all cores, in the order in which they came.

The same ids come out whatever the number of processes. What is held at a time does not depend on
the corpus: a few groups of documents for each process.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np

from fairway.prepare.workers import worker_pool
from fairway.tokens.caseops import encode_case
from fairway.tokens.tokenizer import CaseTokenizer, Tokenizer, load_tokenizer

GROUP_BYTES, GROUP_DOCUMENTS = 1 << 19, 256  # what a process is handed at a time
PART_BYTES = 1 << 22  # SentencePiece takes 50 bytes of memory for a byte, and ever more time
GROUPS_EACH = 4  # waiting for each process

_tokenizer: Tokenizer  # in a worker: its own


class Encoded(NamedTuple):
    """tokens  (n,) uint16, BOS first"""

    document: bytes
    tokens: np.ndarray


def encode_document(tokenizer: Tokenizer, document: bytes) -> np.ndarray:
    """Ids (n,) uint16, BOS first; a long document is encoded in parts, cut after a line."""
    if isinstance(tokenizer, CaseTokenizer):  # a word is not to be cut before its case is told
        document, tokenizer = encode_case(document), tokenizer.inner
    ids = [np.array([tokenizer.bos_id], np.uint16)]
    begin = 0
    while begin < len(document):
        end = begin + PART_BYTES
        if end < len(document):
            end = document.rfind(b"\n", begin, end) + 1 or _between_letters(document, end)
        ids.append(tokenizer.encode(document[begin:end]))
        begin = end
    return np.concatenate(ids)


def _between_letters(document: bytes, place: int) -> int:
    """At or shortly before `place`, not inside a letter of UTF-8."""
    starts = (p for p in range(place, place - 4, -1) if document[p] & 0xC0 != 0x80)
    return next(starts, place)


def encode_in_order(
    documents: Iterable[bytes], tokenizer: Tokenizer, workers: int
) -> Iterator[Encoded]:
    """Every document with its ids, in order. Raises ValueError where a process dies."""
    groups = _groups(documents)
    if workers == 1:
        for group in groups:
            yield from (Encoded(one, encode_document(tokenizer, one)) for one in group)
        return
    with worker_pool(workers, partial(_begin, tokenizer.to_bytes())) as pool:
        waiting: deque[tuple[list[bytes], Future[list[np.ndarray]]]] = deque()
        try:
            for group in groups:
                waiting.append((group, pool.submit(_encode_group, group)))
                if len(waiting) > GROUPS_EACH * workers:
                    yield from _first(waiting)
            while waiting:
                yield from _first(waiting)
        except BrokenProcessPool as error:
            raise ValueError(
                "a process that encodes was ended, for want of memory perhaps; use fewer with "
                "--workers N. A script of your own that calls prepare must do so below "
                "`if __name__ == '__main__':`"
            ) from error


def _first(waiting: deque[tuple[list[bytes], Future[list[np.ndarray]]]]) -> Iterator[Encoded]:
    group, encoded = waiting.popleft()
    yield from map(Encoded, group, encoded.result())


def _groups(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    group, size = [], 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= GROUP_BYTES or len(group) == GROUP_DOCUMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _begin(tokenizer: bytes) -> None:
    global _tokenizer
    _tokenizer = load_tokenizer(tokenizer)


def _encode_group(group: list[bytes]) -> list[np.ndarray]:
    return [encode_document(_tokenizer, document) for document in group]
